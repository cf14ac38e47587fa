"""Regenerates every golden and tiny model under tests/data, in order. See README.md."""

import common
import make_boxes
import make_formats
import make_images
import make_masks
import make_mini
import make_models
import make_posemb
import make_tokenizer_json
import make_tokenizers


def main():
    common.log("versions:", common.versions())
    make_tokenizers.main()
    make_tokenizer_json.main([])
    make_images.main()
    make_posemb.main()
    make_masks.main([])
    make_models.main()
    make_formats.main()
    make_boxes.main()
    make_mini.main()
    total = sum(f.stat().st_size for f in common.DATA.rglob("*") if f.is_file())
    common.log(f"tests/data: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
