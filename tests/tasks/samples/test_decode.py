import contextlib
import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from neuron_atlas.tasks.samples.decode import FORMATS, decode_image
from neuron_atlas.tasks.samples.source import SampleError

SHARED = Path(__file__).parents[3].parent / "shared"
PHOTOS, CASES = SHARED / "photos" / "images", SHARED / "cases" / "data"
RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gray_ramp(values, dtype):
    return Image.fromarray(np.array([values], dtype=dtype))


def decoded_grays(image, kind):
    pixels = np.asarray(decode_image(encoded(image, kind)))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[0, :, 0].tolist()


def palette_image(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return encoded(image, "PNG", **options)


def test_an_rgb_image_comes_back_pixel_for_pixel():
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = decode_image(encoded(Image.fromarray(values)))
    assert pixels.mode == "RGB"
    assert (np.asarray(pixels) == values).all()


def test_grey_becomes_three_equal_channels():
    assert decoded_grays(gray_ramp([0, 100, 255], np.uint8), "PNG") == [0, 100, 255]


def test_one_bit_becomes_black_and_white():
    assert decoded_grays(Image.new("1", (2, 1), 1), "PNG") == [255, 255]
    assert decoded_grays(Image.new("1", (2, 1), 0), "PNG") == [0, 0]


def test_transparent_pixels_of_rgba_show_white_and_half_transparent_ones_are_mixed():
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*BLACK, 0))
    image.putpixel((2, 0), (*BLACK, 128))
    pixels = decode_image(encoded(image))
    assert [pixels.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (127, 127, 127)]


def test_transparent_pixels_of_grey_show_white():
    image = Image.new("LA", (2, 1), (0, 255))
    image.putpixel((1, 0), (0, 0))
    pixels = decode_image(encoded(image))
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [BLACK, WHITE]


def test_a_palette_gives_its_colours():
    pixels = decode_image(palette_image())
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [RED, (0, 0, 255)]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_transparent_palette_entry_shows_white(transparency):
    pixels = decode_image(palette_image(transparency=transparency))
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


def test_a_transparent_colour_of_an_rgb_image_shows_white():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLACK)
    pixels = decode_image(encoded(image, transparency=BLACK))
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


def test_cmyk_becomes_its_colour():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        red, green, blue = decode_image(encoded(image, kind, **options)).getpixel((8, 8))
        assert (red > 250, green < 5, blue < 5) == (True, True, True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    image = gray_ramp([0, 255, 32896, 65535], np.uint16)
    assert image.mode == "I;16"
    assert decoded_grays(image, kind) == [0, 1, 128, 255]


def test_a_dark_sixteen_bit_image_stays_dark():
    assert decoded_grays(gray_ramp([0, 200], np.uint16), "PNG") == [0, 1]


def test_sixteen_bits_of_the_other_byte_order_are_scaled_too():
    tiff = encoded(Image.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff"), "TIFF")
    assert Image.open(io.BytesIO(tiff)).mode == "I;16B"
    assert np.asarray(decode_image(tiff))[0, :, 0].tolist() == [128, 255]


def test_a_sixteen_bit_pgm_is_scaled_even_when_it_is_dark():
    pgm = b"P5 2 1 65535\n" + np.array([0, 200], ">u2").tobytes()
    assert np.asarray(decode_image(pgm))[0, :, 0].tolist() == [0, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "grays"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 32896, 65535], [0, 128, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([7_000_000, 7_000_000, 7_000_000], [0, 0, 0]),
    ],
)
def test_thirty_two_bit_integers_span_eight_bits_sixteen_bits_or_their_own_range(values, grays):
    assert decoded_grays(gray_ramp(values, np.int32), "TIFF") == grays


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "grays"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-2.0, 0.0, 2.0], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
    ],
)
def test_floats_span_one_or_eight_bits_or_their_own_range(values, grays):
    assert decoded_grays(gray_ramp(values, np.float32), "TIFF") == pytest.approx(grays, abs=0)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_only_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, BLACK)]
    animation = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(animation)).n_frames == 2
    red, green, blue = decode_image(animation).getpixel((8, 8))
    assert (red > 240, green < 10, blue < 10) == (True, True, True)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_named_as_known_is_read(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert decode_image(encoded(Image.new("RGB", (32, 32), WHITE), kind)).size == (32, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_the_exif_rotation_is_applied_once(orientation, kind):
    # The red corner of the picture as meant, and where each orientation stores it.
    upright = Image.new("RGB", (32, 16), WHITE)
    upright.paste(RED, (0, 0, 8, 8))
    stored = upright
    for turn in {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # The HEIF encoder reads the rotation from bytes only, and stores it as phones do.
    pixels = decode_image(encoded(stored, kind, exif=exif.tobytes() if kind == "HEIF" else exif))
    assert pixels.size == (32, 16)
    red, green, _ = pixels.getpixel((3, 3))
    assert red > 200
    assert green < 60
    assert pixels.getpixel((28, 12))[1] > 200


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0", b"Exif\0\0II*\0garbage"]
)
def test_broken_exif_does_not_cost_the_image(exif):
    pixels = decode_image(encoded(Image.new("RGB", (8, 8), RED), exif=exif))
    assert pixels.getpixel((0, 0)) == RED


def with_chunk(png, kind, content, checksum=None):
    """Insert a chunk after the header of a PNG."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    chunk = len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


BIG_TEXT = b"prompt\0\0" + zlib.compress(b"x" * 5_000_000)


@pytest.mark.parametrize(
    ("kind", "content", "checksum"),
    [
        (b"zTXt", BIG_TEXT, None),
        (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"x" * 5_000_000), None),
        (b"tEXt", b"prompt\0a", 1),
        (b"eXIf", b"II*\0garbage", 1),
        (b"iCCP", b"p\0\0" + b"garbage", None),
        (b"pHYs", b"\0", None),
    ],
)
def test_metadata_does_not_cost_the_image(kind, content, checksum):
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((1, 0), (*BLACK, 0))
    png = with_chunk(encoded(image), kind, content, checksum)
    pixels = decode_image(png)
    assert [pixels.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]
    with pytest.raises(SampleError) as bad:
        decode_image(png[: png.index(b"IDAT") + 8])
    assert bad.value.status == "unreadable"


def test_rotation_and_transparency_survive_the_loss_of_metadata():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    png = with_chunk(encoded(image, exif=exif, transparency=1), b"zTXt", BIG_TEXT)
    pixels = decode_image(png)
    assert pixels.size == (1, 2)
    assert [pixels.getpixel((0, y)) for y in range(2)] == [RED, WHITE]


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases from the field are not here")
def test_the_image_with_a_large_text_from_the_field_is_read():
    pixels = decode_image((CASES / "large-text-chunk.png").read_bytes())
    assert pixels.size == Image.open(io.BytesIO(encoded(pixels))).size == (8, 8)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    image = encoded(Image.new("RGB", (100, 50)))
    assert decode_image(image, max_pixels=5000).size == (100, 50)

    def decode_anyway(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode_anyway)
    with pytest.raises(SampleError, match=r"100 x 50 .* 4999; raise data\.max_pixels") as bad:
        decode_image(image, max_pixels=4999)
    assert bad.value.status == "oversized"


def bomb(width, height):
    """A PNG whose header announces far more pixels than its body holds."""
    whole = encoded(Image.new("L", (1, 1)))
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:29]
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


def test_a_decompression_bomb_is_oversized_whatever_the_limit():
    for limit in (10**6, 10**12):
        with pytest.raises(SampleError) as bad:
            decode_image(bomb(60_000, 60_000), max_pixels=limit)
        assert bad.value.status == "oversized"


def test_pillows_own_limit_is_left_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SampleError) as bad:
            decode_image(bomb(10_000, 10_000), max_pixels=10**12)
    assert bad.value.status == "oversized"
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95])
def test_a_truncated_image_is_unreadable(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    with pytest.raises(SampleError) as bad:
        decode_image(whole[: int(len(whole) * share)])
    assert bad.value.status == "unreadable"


@pytest.mark.filterwarnings("ignore")
def test_corrupt_bytes_are_unreadable_or_an_image_but_never_another_error():
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        whole = np.frombuffer(encoded(noise, kind), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, len(broken), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(SampleError):
                assert decode_image(broken.tobytes(), 10**6).mode == "RGB"


def test_the_reason_for_no_image_is_the_same_every_time():
    reasons = []
    for _ in range(2):
        with pytest.raises(SampleError) as bad:
            decode_image(b"no image at all")
        reasons.append(bad.value.reason)
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("not an image in a supported format")


@pytest.mark.parametrize("kind", ["EPS", "PCX"])
def test_other_formats_are_not_read_though_pillow_could(kind):
    with pytest.raises(SampleError, match="not an image in a supported format") as bad:
        decode_image(encoded(Image.new("RGB", (4, 4)), kind))
    assert bad.value.status == "unreadable"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sixteen photographs are not here")
def test_the_sixteen_photographs_decode_to_rgb_at_their_size():
    photos = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png"))
    assert len(photos) == 16
    for path in photos:
        pixels = decode_image(path.read_bytes())
        assert pixels.mode == "RGB"
        assert pixels.size == Image.open(path).size
        assert np.asarray(pixels).std() > 1
