"""Boxes and masks of a model that is built to answer with known <loc> and <seg> tokens (tools/golden/make_boxes.py)."""
import struct
import zlib

from harness import Case, DATA, IMAGES, PHOTO, golden

MODEL = "paligemma_boxes"
DECODER = ["--mask-decoder", DATA / "masks" / "vae-oid.npz"]


def read_png(path):
    """Width, height and [y][x] (r, g, b) of an 8-bit RGB picture."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n"), path
    at, packed = 8, b""
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at:at + 8])
        data = content[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, *rest = struct.unpack(">IIBBBBB", data)
            assert rest == [8, 2, 0, 0, 0], rest
        packed += data if kind == b"IDAT" else b""
        at += size + 12
    raw, stride, rows = zlib.decompress(packed), 3 * width, []
    above = bytearray(stride)
    for y in range(height):
        line = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            left, corner = (line[i - 3], above[i - 3]) if i >= 3 else (0, 0)
            up = above[i]
            nearest = min((abs(up - corner), 0, left), (abs(left - corner), 1, up),
                          (abs(left + up - 2 * corner), 2, corner))[2]
            line[i] = line[i] + (0, left, up, (left + up) // 2, nearest)[raw[y * (stride + 1)]] & 255
        rows.append([tuple(line[3 * x:3 * x + 3]) for x in range(width)])
        above = line
    return width, height, rows


def inside(counts, height):
    """The (x, y) that run lengths, column by column, cover."""
    points, at = set(), 0
    for i, count in enumerate(counts):
        if i % 2:
            points |= {divmod(p, height) for p in range(at, at + count)}
        at += count
    return points


class Locations(Case):
    def place(self, width, height):
        return next(p for p in golden(MODEL)["places"] if (p["width"], p["height"]) == (width, height))

    def pali(self, verb, image, *more):
        return self.ok(verb, image, "cat ; dog", "-n", "80", *more, model=MODEL)

    def test_boxes_of_the_picture_as_it_is_shown(self):
        # Turned by EXIF: 6 stands on its side, 1 does not.
        for image, size in ((PHOTO, (37, 53)), (IMAGES / "exif1.jpg", (23, 14)), (IMAGES / "exif6.jpg", (14, 23))):
            place = self.place(*size)
            found = self.pali("detect", image, "--json").json()
            self.assertEqual(found["tokens"], golden(MODEL)["tokens"])
            self.assertEqual((found["width"], found["height"], found["invalid"]), (*size, 1))
            boxes = [(b["label"], [round(v, 2) for v in b["box"]]) for b in place["boxes"]]
            self.assertEqual([(b["label"], b["box"]) for b in found["boxes"]], boxes)
            lines = [f"{b['label']}\t" + " ".join(f"{v:.1f}" for v in b["box"]) + "\n" for b in place["boxes"]]
            self.assertEqual(self.pali("detect", image).out, "".join(lines))

            coco = self.pali("detect", image, "--coco").json()
            self.assertEqual([c["name"] for c in coco["categories"]], ["cat", "dog"])
            for one, box in zip(coco["annotations"], place["boxes"], strict=True):
                x0, y0, x1, y1 = box["box"]
                self.assertEqual(one["bbox"], [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)])
                self.assertEqual(one["area"], round((x1 - x0) * (y1 - y0), 2))
                self.assertNotIn("segmentation", one)

    def test_stream_changes_nothing(self):
        # Tokens of places are no text to read: the lines come whole.
        whole = self.pali("detect", PHOTO).raw
        self.assertEqual(whole.count(b"\n"), len(self.place(37, 53)["boxes"]))
        self.assertEqual(self.pali("detect", PHOTO, "--stream").raw, whole)

    def test_masks_are_the_reference_s(self):
        for image, size in ((PHOTO, (37, 53)), (IMAGES / "exif6.jpg", (14, 23))):
            place = self.place(*size)
            masks = [{"size": [size[1], size[0]], "counts": b["coco"]} for b in place["boxes"]]
            found = self.pali("segment", image, "--json", *DECODER).json()
            self.assertEqual([b["mask"] for b in found["boxes"]], masks)
            self.assertEqual(found["invalid"], 1)
            coco = self.pali("segment", image, "--coco", *DECODER).json()["annotations"]
            self.assertEqual([a["segmentation"] for a in coco], masks)
            self.assertEqual([a["area"] for a in coco], [b["area"] for b in place["boxes"]])

    def test_pictures(self):
        mask, drawn = self.folder / "mask.png", self.folder / "drawn.png"
        place = self.place(37, 53)
        _, _, photo = read_png(PHOTO)
        self.pali("segment", PHOTO, "--mask", mask, "--draw", drawn, *DECODER)
        points = [inside(b["counts"], 53) for b in place["boxes"]]
        width, height, rows = read_png(mask)
        self.assertEqual((width, height), (37, 53))
        white = {(x, y) for y in range(53) for x in range(37) if rows[y][x] == (255, 255, 255)}
        self.assertEqual(white, points[0] | points[1])
        self.assertEqual({rows[y][x] for y in range(53) for x in range(37)}, {(0, 0, 0), (255, 255, 255)})

        width, height, rows = read_png(drawn)
        self.assertEqual((width, height), (37, 53))
        changed = {(x, y) for y in range(53) for x in range(37) if rows[y][x] != photo[y][x]}
        both = points[0] | points[1]
        self.assertGreater(len(changed & both), 0.95 * len(both))  # tinted
        # Outside both boxes: (4.6, 0)-(37, 26.5) and (1.4, 15.5)-(21.7, 53).
        self.assertFalse({(x, y) for x, y in changed if x > 26 and y > 40})
        frame = {(1, y) for y in range(35, 50)} | {(2, y) for y in range(35, 50)}
        self.assertGreater(len(changed & frame), 15)  # the second one's left side

    def test_constrained(self):
        place = self.place(37, 53)
        for verb, more in (("detect", []), ("segment", DECODER)):
            found = self.pali(verb, PHOTO, "--constrain", "--json", *more).json()
            self.assertEqual(found["invalid"], 0)
            self.assertEqual(found["boxes"][0]["box"], [round(v, 2) for v in place["boxes"][0]["box"]])
        self.assertEqual([b["mask"]["counts"] for b in found["boxes"][:2]], [b["coco"] for b in place["boxes"]])

    def test_no_mask_decoder(self):
        self.fails(1, "segment", PHOTO, "cat", model=MODEL, says=["vae-oid.npz", "--mask-decoder"])
