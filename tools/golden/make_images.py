"""Writes the small image files, what PIL decodes from them, and resize goldens (tests/data/images)."""

import struct
import zlib

import common
import numpy as np
from PIL import Image, ImageOps

IMAGES = common.DATA / "images"


def picture(width, height, seed=0):
    """A smooth scene with edges and a little noise, no symmetry: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width, (y + 0.5) / height
    r = 255 * u * (0.6 + 0.4 * np.sin(5 * v))
    g = 255 * v * (0.7 + 0.3 * np.cos(7 * u))
    b = 127 + 120 * np.sin(6 * (u + v * v))
    rgb = np.stack([r, g, b], -1)
    rgb[(u - 0.3) ** 2 + (v - 0.35) ** 2 < 0.04] = [240, 30, 20]
    rgb[(u > 0.6) & (u < 0.9) & (v > 0.55) & (v < 0.8)] = [10, 200, 250]
    rgb[int(height * 0.1) : int(height * 0.1) + 1] = [255, 255, 255]
    rgb += rng.normal(0, 4, rgb.shape)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows_of_passes, width, height, depth, color, interlace=0):
    raw = b"".join(b"\0" + row for rows in rows_of_passes for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def interlaced_png(rgb):
    height, width = rgb.shape[:2]
    passes = []
    for x0, y0, dx, dy in ADAM7:
        part = rgb[y0::dy, x0::dx]
        passes.append([row.tobytes() for row in part] if part.size else [])
    return png(passes, width, height, 8, 2, 1)


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def with_palette(image, colors):
    return image.quantize(colors, dither=Image.Dither.NONE)


def write_files():
    """Returns [(file, what it tests, exact)]; exact: every decoder must give the same bytes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for old in IMAGES.iterdir():
        if old.name != "resize_sizes.golden.json":  # make_resize.py's
            old.unlink()
    base = picture(37, 53, 1)
    image = Image.fromarray(base)
    gray = image.convert("L")
    out = []

    def save(name, img, note, exact=True, **options):
        img.save(IMAGES / name, **options)
        out.append((name, note, exact))

    def write(name, data, note, exact=True):
        (IMAGES / name).write_bytes(data)
        out.append((name, note, exact))

    # JPEG: decoders differ by a few levels, so these are tolerance cases.
    save("gray.jpg", gray, "JPEG, gray", False, quality=90)
    save("rgb444.jpg", image, "JPEG, no chroma subsampling", False, quality=92, subsampling=0)
    save("rgb420.jpg", image, "JPEG, chroma 4:2:0", False, quality=90, subsampling=2)
    save("cmyk.jpg", image.convert("CMYK"), "JPEG, CMYK with Adobe marker", False, quality=92)
    save("progressive.jpg", image, "JPEG, progressive", False, quality=90, progressive=True, subsampling=0)
    small = Image.fromarray(picture(23, 14, 2))
    for k in range(1, 9):
        save(f"exif{k}.jpg", small, f"JPEG, EXIF orientation {k}", False, quality=92, subsampling=0,
             exif=exif_bytes(k))
    save("exif9.jpg", small, "JPEG, EXIF orientation out of range: ignored", False, quality=92, subsampling=0,
         exif=exif_bytes(9))

    # PNG
    save("rgb_37x53.png", image, "PNG, RGB")
    save("gray.png", gray, "PNG, gray")
    alpha = Image.fromarray((np.add.outer(np.arange(53) * 4, np.arange(37) * 2) % 256).astype(np.uint8))
    la = Image.merge("LA", (gray, alpha))
    save("gray_alpha.png", la, "PNG, gray with alpha (dropped)")
    rgba = image.copy()
    rgba.putalpha(alpha)
    save("rgba.png", rgba, "PNG, RGBA (alpha dropped)")
    pal = with_palette(image, 13)
    save("palette.png", pal, "PNG, palette of 13 colours (4 bits)")
    save("palette_transparent.png", pal, "PNG, palette with tRNS (dropped)", transparency=bytes(range(0, 130, 10)))
    save("palette256.png", with_palette(image, 200), "PNG, palette of 8 bits")
    bits = gray.point(lambda v: 255 if v > 110 else 0).convert("1")
    save("gray1.png", bits, "PNG, 1-bit gray")
    rng = np.random.default_rng(3)
    deep = (base.astype(np.uint16) << 8) | rng.integers(0, 256, base.shape, dtype=np.uint16)
    deep_gray = deep[..., 0]
    write("gray16.png", png([[r.astype(">u2").tobytes() for r in deep_gray]], 37, 53, 16, 0),
          "PNG, 16-bit gray: the high byte")
    write("rgb16.png", png([[r.astype(">u2").tobytes() for r in deep]], 37, 53, 16, 2),
          "PNG, 16-bit RGB: the high byte")
    four = (np.asarray(gray) >> 4).astype(np.uint8)
    padded = np.pad(four, ((0, 0), (0, 1)))
    packed = (padded[:, 0::2] << 4) | padded[:, 1::2]
    write("gray4.png", png([[r.tobytes() for r in packed]], 37, 53, 4, 0), "PNG, 4-bit gray")
    write("interlaced.png", interlaced_png(base), "PNG, Adam7")
    save("one_pixel.png", Image.fromarray(np.array([[[200, 100, 50]]], np.uint8)), "PNG, 1x1")
    save("a photo – naïve café 图.png", small, "PNG, spaces and UTF-8 in the name")

    # others
    save("rgb.bmp", Image.fromarray(picture(19, 13, 4)), "BMP, 24 bits, rows padded")
    frames = [with_palette(Image.fromarray(picture(21, 17, s)), 16) for s in (5, 6)]
    frames[0].save(IMAGES / "two_frames.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    out.append(("two_frames.gif", "GIF, the first of two frames", True))
    save("rgb.ppm", Image.fromarray(picture(19, 13, 7)), "PPM, binary")
    save("gray.pgm", Image.fromarray(picture(19, 13, 8)).convert("L"), "PGM, binary")
    return out


def decoded(name):
    """What the engine must give: EXIF applied, RGB, 16 bits by their high byte."""
    image = Image.open(IMAGES / name)
    image.seek(0)
    if name == "gray16.png":  # PIL's convert("RGB") clips 16-bit gray: not copied
        high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(high[..., None], 3, -1)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


RESIZE_INPUTS = [(1, 1), (3, 7), (37, 53), (200, 9), (640, 11)]  # width, height
RESIZE_OUTPUTS = [(1, 1), (2, 3), (16, 16), (44, 44), (67, 13), (13, 67)]


def resize_goldens():
    tensors = {}
    for w, h in RESIZE_INPUTS:
        rgb = picture(w, h, 100 + w)
        if (w, h) == (37, 53):  # hard edges: bicubic overshoots and must be clipped
            rgb[::5] = 255
            rgb[2::5] = 0
        tensors[f"in/{w}x{h}"] = rgb
        image = Image.fromarray(rgb)
        for name, kind in (("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)):
            for ow, oh in RESIZE_OUTPUTS:
                tensors[f"{name}/{w}x{h}/{ow}x{oh}"] = np.asarray(image.resize((ow, oh), kind))
    return tensors


def crop_goldens():
    """CLIP's: the shorter side resized, a square cut out of the middle; black where that is too small."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tensors = {}
    for w, h in [(3, 7), (37, 53), (200, 9), (9, 200), (16, 47), (47, 16), (15, 15)]:
        rgb = picture(w, h, 300 + w)
        tensors[f"in/{w}x{h}"] = rgb
        for edge, side in [(16, 16), (21, 14), (10, 15), (9, 13)]:
            processor = CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": side, "width": side},
                                              do_rescale=False, do_normalize=False)
            pixels = processor(Image.fromarray(rgb), return_tensors="np").pixel_values[0]
            tensors[f"{w}x{h}/{edge}/{side}"] = np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(np.uint8)
    return tensors


def pixel_goldens():
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tensors = {}
    for name, size in (("rgb_37x53.png", 44), ("gray_alpha.png", 16), ("palette.png", 30), ("one_pixel.png", 5)):
        image = ImageOps.exif_transpose(Image.open(IMAGES / name)).convert("RGB")
        processor = SiglipImageProcessorPil(size={"height": size, "width": size})
        tensors[f"siglip/{size}/{name}"] = processor(image, return_tensors="pt").pixel_values[0]
    return tensors


def main():
    files = write_files()
    tensors, rows = {}, []
    for name, note, exact in files:
        rgb = decoded(name)
        tensors[name] = rgb
        rows.append({"file": name, "note": note, "width": rgb.shape[1], "height": rgb.shape[0], "exact": exact})
    common.write_tensors(IMAGES / "decoded.golden.safetensors", tensors)
    common.write_tensors(IMAGES / "resize.golden.safetensors", resize_goldens())
    common.write_tensors(IMAGES / "crop.golden.safetensors", crop_goldens())
    common.write_tensors(IMAGES / "pixels.golden.safetensors", pixel_goldens())
    common.write_json(
        IMAGES / "golden.json",
        common.header("images") | {
            "tolerance": "exact: false marks JPEG, whose decoders differ: mean absolute difference below 1.5, "
                         "largest below 24 of 255",
            "files": rows,
        },
    )
    biggest = max(f.stat().st_size for f in IMAGES.iterdir() if "golden" not in f.name)
    common.log(f"images: {len(rows)} files, the largest {biggest} bytes; "
               f"goldens {sum(f.stat().st_size for f in IMAGES.iterdir()) // 1024} KB")


if __name__ == "__main__":
    main()
