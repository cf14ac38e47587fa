"""Writes the model folder from checkpoints of train.py.

  export.py --checkpoint mixture/checkpoint.pt [--towers siglip/checkpoint.pt] --tokenizer spiece.model --out models/pali-mini

--towers takes the SigLIP pooling head, text tower and logit scale from another checkpoint; that is right
only where both trained over the same frozen ViT, and is checked.

The engine reads the folder; `pali convert models/pali-mini -o pali-mini.safetensors` makes one file of it, the
pali checkpoint.
"""

import argparse
from pathlib import Path

import torch

import model as pali


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--towers", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = torch.load(args.checkpoint)["weights"]
    if args.towers:
        other = torch.load(args.towers)["weights"]
        taken = ("net.vision_tower.head.", "net.text_tower.", "net.logit_")
        for k in weights:
            if k.startswith(taken):
                weights[k] = other[k]
            elif k.startswith("net.vision_tower.") and not torch.equal(weights[k], other[k]):
                raise SystemExit(f"{k} differs: the two checkpoints have not the same ViT")
    positions = next(v for k, v in weights.items() if k.endswith("vision_tower.embeddings.position_embedding.weight"))
    net = pali.Pali3(pali.mini(round(positions.shape[0] ** 0.5) * pali.MINI["vision_config"]["patch_size"]))
    net.load_state_dict({k[4:]: v for k, v in weights.items() if k.startswith("net.")})
    pali.export(net, args.tokenizer, args.out)
    print(pali.sizes(net))


if __name__ == "__main__":
    main()
