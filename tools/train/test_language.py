"""language.py gives what transformers gives: memory and cross-entropy in f32. Run it as a script; it takes seconds."""

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput

import language
import model as pali


def main():
    torch.manual_seed(1)
    net = pali.Pali3(pali.mini(112)).eval()
    lm = net.language_model
    prompts, answers = torch.randint(2, 3000, (3, 12)), torch.randint(2, 3000, (3, 9))
    prompts[1, 7:], answers[2, 4:] = 0, -100
    visual, mask = torch.randn(3, 10, 256), (prompts != 0).long()
    with torch.no_grad():
        memory, whole = net.read(visual, prompts, mask)
        x = torch.cat([visual, lm.shared(prompts)], 1)
        ours = language.encode(lm.encoder, x, whole, language.buckets(x.shape[1], True))
        torch.testing.assert_close(ours[whole > 0], memory[whole > 0], rtol=1e-4, atol=1e-4)
        logits = lm(encoder_outputs=BaseModelOutput(memory), attention_mask=whole, labels=answers).logits
        wanted = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view(answers.shape)
        each = language.say(lm, memory, whole, answers, language.buckets(answers.shape[1], False))
        torch.testing.assert_close(each, wanted, rtol=1e-4, atol=1e-4)
    print(f"the same: {float(each.sum()):.4f}")


if __name__ == "__main__":
    main()
