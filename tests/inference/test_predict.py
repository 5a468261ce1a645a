"""Prediction of files: any size and mode, nothing overwritten or done twice, failures counted."""

import csv
import functools
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparseg.config import Config
from sparseg.data import drawing, shards
from sparseg.inference import predict
from sparseg.inference.images import list_images, read_image
from sparseg.runs import checkpoint

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]


@pytest.fixture
def stub(monkeypatch, tmp_path_factory):
    """A network whose class is 0 for dark, 1 for reddish and 2 for greenish pixels."""
    sizes = []

    weights = tmp_path_factory.mktemp("networks")
    for name in ("ckpt", "other"):
        (weights / name).mkdir()
        (weights / name / "model.safetensors").write_text(name)

    def strips(model, image_B3HW, *, window_px=None):
        assert model == "network" and image_B3HW.dtype == torch.uint8
        sizes.append((*image_B3HW.shape[2:], window_px))
        red, green = image_B3HW[:, 0].float(), image_B3HW[:, 1].float()
        p = torch.stack([torch.full_like(red, 50.0), red, green], 1).div(100).softmax(1)
        yield from (p[:, :, :31], p[:, :, 31:66], p[:, :, 66:])

    loaded = types.SimpleNamespace(model="network", names=["a", "b", "c"], palette=PALETTE, config=Config())
    monkeypatch.setattr(checkpoint, "load_model", lambda path, device="cpu": loaded)
    monkeypatch.setattr(checkpoint, "resolve", lambda path: weights / Path(path).name)
    monkeypatch.setattr(predict, "probability_strips", strips)
    monkeypatch.delattr(predict, "predict_image")  # which holds a whole scene
    return sizes


def failures(*args, **options):
    return predict.predict_folder(*args, **options).failures


def picture(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :, 0] = 255
    image[height // 2 :, : width // 2, 1] = 255
    return image


def expected(height, width):
    label = np.zeros((height, width), np.uint8)
    label[:, width // 2 :] = 1
    label[height // 2 :, : width // 2] = 2
    return label


def test_folder_becomes_palette_pngs_overlays_and_probabilities(tmp_path, stub, capsys):
    source, out = tmp_path / "in", tmp_path / "deep" / "out"
    source.mkdir()
    Image.fromarray(picture(70, 91)).save(source / "one.png")
    Image.fromarray(picture(128, 64)).save(source / "two.bmp")
    (source / "notes.txt").write_text("not an image")
    assert failures("ckpt", source, out, overlay=True, probabilities=True) == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "one.npz",
        "one.png",
        "one_overlay.jpg",
        "predictions.csv",
        "two.npz",
        "two.png",
        "two_overlay.jpg",
    ]
    mask = Image.open(out / "one.png")
    assert mask.mode == "P" and np.array_equal(np.asarray(mask), expected(70, 91))
    assert tuple(mask.convert("RGB").getpixel((80, 5))) == PALETTE[1]
    stored = np.load(out / "one.npz")
    assert stored["probabilities"].dtype == np.float16 and stored["probabilities"].shape == (3, 70, 91)
    assert np.array_equal(stored["probabilities"].argmax(0), expected(70, 91))
    assert stored["names"].tolist() == ["a", "b", "c"]
    overlay = Image.open(out / "two_overlay.jpg")
    assert overlay.width == 64 and overlay.height > 128
    assert "2 of 2 images" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 200), (333, 65)])
def test_any_size_comes_back_at_its_size(tmp_path, stub, size):
    Image.fromarray(picture(*size)).save(tmp_path / "image.png")
    assert failures("ckpt", tmp_path / "image.png", tmp_path / "out") == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "image.png")), expected(*size))
    assert min(stub[0][:2]) >= predict.SMALLEST_PX


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_any_mode_is_read_as_in_training(tmp_path, mode):
    grey = np.tile(np.linspace(0, 255, 70).astype(np.uint8), (70, 1))
    file = tmp_path / "image.tif"
    wide = grey.astype(np.uint16) * 257 if mode == "I;16" else None
    image = Image.fromarray(grey if wide is None else wide)
    (image if mode == "I;16" else image.convert("RGB" if mode == "P" else "L").convert(mode)).save(file)
    found = read_image(file)
    assert found.shape == (70, 70, 3) and found.dtype == np.uint8
    assert found[:, :20].mean() < 60 and found[:, 50:].mean() > 180  # dark stays dark
    assert (found == shards.decode_image(file.read_bytes())).all(), "training reads it otherwise"


@pytest.mark.parametrize("mode", ["CMYK", "I", "F", "see-through", "8 bits in 16"])
def test_what_an_import_refuses_is_not_predicted(tmp_path, mode):
    grey = Image.fromarray(np.tile(np.linspace(0, 255, 70).astype(np.uint8), (70, 1)))
    if mode == "see-through":
        image = grey.convert("RGBA")
        image.putpixel((3, 3), (1, 2, 3, 0))
    elif mode == "8 bits in 16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16))
    else:
        image = grey.convert(mode)
    file = tmp_path / "image.tif"
    image.save(file)
    with pytest.raises(
        ValueError, match=r"image\.tif: image of .*(convert it to|gdal_translate)"
    ) as predicted:
        read_image(file)
    with pytest.raises(ValueError) as imported:
        shards.decode_image(file.read_bytes(), is_new=True)
    assert str(predicted.value) == f"{file}: {imported.value}"


def test_a_turned_photograph_is_predicted_as_a_viewer_shows_it(tmp_path, stub):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(91, 70)).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "photo.png", exif=exif
    )
    assert failures("ckpt", tmp_path / "photo.png", tmp_path / "out", overlay=True) == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "photo.png")), expected(91, 70))
    overlay = Image.open(tmp_path / "out" / "photo_overlay.jpg")
    assert overlay.width == 70 and overlay.height > 91 and 0x0112 not in overlay.getexif()


def test_glob_pattern_and_window(tmp_path, stub):
    for name in ("a1.png", "a2.png", "b.png"):
        Image.fromarray(picture(80, 80)).save(tmp_path / name)
    assert failures("ckpt", str(tmp_path / "a*.png"), tmp_path / "out", window_px=72) == 0
    assert sorted(file.name for file in (tmp_path / "out").glob("*.png")) == ["a1.png", "a2.png"]
    assert stub == [(80, 80, 72)] * 2


def test_a_patterns_suffix_matches_in_any_case(tmp_path):
    for name in ("IMG_1.JPG", "img_2.jpg", "b.png"):
        (tmp_path / name).touch()
    assert [file.name for file in list_images(f"{tmp_path}/*.jpg")[1]] == ["IMG_1.JPG", "img_2.jpg"]
    assert [file.name for file in list_images(f"{tmp_path}/img*.JPG")[1]] == ["img_2.jpg"]
    assert [file.name for file in list_images(f"{tmp_path}/[a-b].*")[1]] == ["b.png"]
    with pytest.raises(ValueError, match="no such image, folder, or match"):
        list_images(f"{tmp_path}/*.gif")


def test_a_scene_is_predicted_by_windows_or_not_at_all(tmp_path, stub, capsys, monkeypatch):
    monkeypatch.setattr(shards, "MAX_PIXELS", 70 * 91 - 1)
    source, out = tmp_path / "scene.png", tmp_path / "out"
    Image.fromarray(picture(70, 91)).save(source)
    assert failures("ckpt", source, out) == 1
    err = capsys.readouterr().err
    assert f"{source}: 91 x 70 pixels" in err and "--window" in err
    assert failures("ckpt", source, out, window_px=64) == 0
    assert (out / "scene.png").is_file()


def test_unreadable_images_are_named_and_counted_and_the_others_written(tmp_path, stub, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(source / "c.png")
    data = (source / "c.png").read_bytes()
    (source / "a.png").write_bytes(data[: len(data) // 2])
    (source / "b.jpg").write_text("hello")
    assert failures("ckpt", source, out) == 2
    assert [file.name for file in out.glob("*.png")] == ["c.png"]
    err = capsys.readouterr().err
    assert f"{source / 'a.png'}: unreadable" in err and f"{source / 'b.jpg'}: unreadable" in err
    assert "1 of 3 images" in err and "2 without a mask" in err


def test_nothing_is_overwritten_without_force(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "image_overlay.jpg").write_text("mine")
    with pytest.raises(ValueError, match=r"image_overlay.jpg exists already.*--force"):
        predict.predict_folder("ckpt", tmp_path / "image.png", out, overlay=True)
    assert [file.name for file in out.iterdir()] == ["image_overlay.jpg"]
    assert failures("ckpt", tmp_path / "image.png", out) == 0  # without --overlay: no conflict
    assert failures("ckpt", tmp_path / "image.png", out, overlay=True, force=True) == 0
    assert Image.open(out / "image_overlay.jpg").width == 70


def test_the_images_themselves_are_never_replaced_even_with_force(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    before = (tmp_path / "image.png").read_bytes()
    with pytest.raises(ValueError, match="is one of the images"):
        predict.predict_folder("ckpt", tmp_path, tmp_path, force=True)
    assert (tmp_path / "image.png").read_bytes() == before


def test_two_images_of_one_stem_are_refused(tmp_path, stub):
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.bmp")
    with pytest.raises(ValueError, match="both be written"):
        predict.predict_folder("ckpt", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_names_of_several_folders_do_not_meet(tmp_path, stub):
    for site in ("siteA", "siteB/2024"):
        (tmp_path / "in" / site).mkdir(parents=True)
        Image.fromarray(picture(70, 70)).save(tmp_path / "in" / site / "IMG_0001.png")
    (tmp_path / "in" / "siteA" / "IMG_0002.png").write_bytes(
        (tmp_path / "in/siteA/IMG_0001.png").read_bytes()
    )
    files, out = str(tmp_path / "in" / "**" / "*.png"), tmp_path / "out"
    assert failures("ckpt", files, out, overlay=True) == 0
    masks = ["siteA/IMG_0001.png", "siteA/IMG_0002.png", "siteB/2024/IMG_0001.png"]
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png")) == masks
    assert sorted(rows_of(out)) == masks and (out / "siteB/2024/IMG_0001_overlay.jpg").is_file()
    count = len(stub)
    assert failures("ckpt", files, out, overlay=True) == 0
    assert len(stub) == count  # all were there already


def test_the_legend_names_the_classes_of_the_image_from_the_largest_down(tmp_path, stub, monkeypatch):
    seen = []
    real = drawing.with_legend
    monkeypatch.setattr(drawing, "with_legend", lambda p, entries: seen.append(entries) or real(p, entries))
    image = picture(400, 300)
    image[:, :150] = 0
    image[:30, :1, 1] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    assert failures("ckpt", tmp_path / "image.png", tmp_path / "out", overlay=True) == 0
    assert seen == [[("b 50.0 %", PALETTE[1]), ("a 50.0 %", PALETTE[0]), ("c <0.1 %", PALETTE[2])]]


def test_a_pattern_over_folders_mirrors_them_whatever_the_names(tmp_path, stub, monkeypatch):
    """So that an image more, of a name that is there, moves no mask."""
    for site in ("siteA", "siteB"):
        (tmp_path / "in" / site).mkdir(parents=True)
        Image.fromarray(picture(70, 70)).save(tmp_path / "in" / site / f"{site}.png")
    assert failures("ckpt", str(tmp_path / "in" / "*" / "*.png"), tmp_path / "out") == 0
    assert sorted(rows_of(tmp_path / "out")) == ["siteA/siteA.png", "siteB/siteB.png"]
    monkeypatch.chdir(tmp_path)  # of one folder, and relative
    found = predict.predict_folder("ckpt", "in/*A/*.png", "one")
    assert [row["mask"] for row in found.rows] == ["siteA/siteA.png"] and found.folder == tmp_path / "one"
    assert predict.predict_folder("ckpt", "in/siteA/*.png", "flat").rows[0]["mask"] == "siteA.png"


def test_a_folder_whose_images_lie_deeper_names_the_pattern(tmp_path):
    for name in ("a/1.JPG", "a/b/2.jpg", "c/3.png", "c/.hidden.png", "c/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"no image in this folder .*, but 3 in its subfolders: ") as error:
        list_images(tmp_path)
    assert str(error.value).endswith(f"give '{tmp_path}/**/*.jpg' or '{tmp_path}/**/*.png'")
    home, files = list_images(f"{tmp_path}/**/*.jpg")
    assert (home, [str(file.relative_to(home)) for file in files]) == (tmp_path, ["a/1.JPG", "a/b/2.jpg"])


def test_no_image_and_a_file_as_output_are_refused(tmp_path, stub):
    (tmp_path / "empty").mkdir()
    for images in (tmp_path / "empty", tmp_path / "missing", tmp_path / "*.jpg"):
        with pytest.raises(ValueError, match=r"no (such )?image"):
            predict.predict_folder("ckpt", images, tmp_path / "out")
    Image.fromarray(picture(70, 70)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="is a file"):
        predict.predict_folder("ckpt", tmp_path / "image.png", tmp_path / "image.png")


# ---------------------------------------------------------------------------------- the list, and going on


def rows_of(folder):
    with (folder / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        return {row["mask"]: row for row in csv.DictReader(file)}


@pytest.fixture
def three(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, share in (("a", 0), ("b", 1), ("c", 2)):
        image = np.zeros((64, 64, 3), np.uint8)
        image[: 32 * share, :, 0] = 255
        Image.fromarray(image).save(source / f"{name}.png")
    return source


def test_the_list_says_how_sure_every_prediction_is(tmp_path, stub, three):
    assert failures("ckpt", three, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ["a.png", "b.png", "c.png"]
    # logits 0.5, 2.55 or 0, 0: the largest probability is that of red, or of the dark class
    red, dark = torch.tensor([0.5, 2.55, 0.0]).softmax(0).max(), torch.tensor([0.5, 0, 0]).softmax(0).max()
    assert float(rows["c.png"]["confidence"]) == pytest.approx(float(red), abs=1e-4)
    assert float(rows["b.png"]["confidence"]) == pytest.approx(float(red + dark) / 2, abs=1e-4)
    assert [row["unsure"] for row in rows.values()] == ["1.0000", "0.5000", "0.0000"]
    assert rows["a.png"]["image"] == str(three / "a.png")


def test_the_list_says_how_much_of_an_image_each_class_covers(tmp_path, stub, three):
    Image.fromarray(picture(70, 91)).save(three / "d.png")
    assert failures("ckpt", three, tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    found = [float(rows["d.png"][f"cover_{name}"]) for name in "abc"]
    assert found == pytest.approx([35 * 45 / 6370, 70 * 46 / 6370, 35 * 45 / 6370], abs=1e-6)
    assert [rows["b.png"][f"cover_{name}"] for name in "abc"] == ["0.500000", "0.500000", "0.000000"]
    columns = ["image", "mask", "also", "confidence", "unsure", "cover_a", "cover_b", "cover_c", "settings"]
    assert list(rows["a.png"]) == columns


def test_a_list_without_cover_is_taken_up_and_completed(tmp_path, stub, three):
    out = tmp_path / "out"
    predict.predict_folder("ckpt", three, out)
    whole, rows = (out / "predictions.csv").read_bytes(), rows_of(out).values()
    with (out / "predictions.csv").open("w", newline="") as file:
        old = ["image", "mask", "also", "confidence", "unsure", "settings"]
        writer = csv.DictWriter(file, old, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    stub.clear()
    assert failures("ckpt", three, out) == 0 and len(stub) == 3
    assert (out / "predictions.csv").read_bytes() == whole
    assert failures("ckpt", three, out) == 0 and len(stub) == 3


def test_networks_of_other_classes_share_a_list(tmp_path, stub, three, monkeypatch):
    out = tmp_path / "out"
    predict.predict_folder("ckpt", three, out)
    other = types.SimpleNamespace(model="network", names=["a", "x, y", "z"], palette=PALETTE, config=Config())
    monkeypatch.setattr(checkpoint, "load_model", lambda path, device="cpu": other)
    predict.predict_folder("other", three / "b.png", out, force=True)
    rows = rows_of(out)
    assert rows["b.png"]["cover_x, y"] == "0.500000" and rows["b.png"]["cover_b"] == ""
    assert rows["c.png"]["cover_x, y"] == "" and rows["c.png"]["cover_b"] == "1.000000"
    predict.predict_folder("other", three, out, force=True)
    assert "cover_b" not in rows_of(out)["a.png"], "a column that no image has"


def test_the_same_command_does_only_what_is_missing(tmp_path, stub, three, capsys):
    out = tmp_path / "out"
    assert failures("ckpt", three, out, overlay=True) == 0
    whole = (out / "predictions.csv").read_bytes()
    (out / "b_overlay.jpg").unlink()
    stub.clear()
    before = (out / "a.png").stat().st_mtime_ns
    assert failures("ckpt", three, out, overlay=True) == 0
    assert len(stub) == 1 and (out / "a.png").stat().st_mtime_ns == before
    assert "2 of 3 images are there already" in capsys.readouterr().err
    assert (out / "predictions.csv").read_bytes() == whole
    stub.clear()
    assert failures("ckpt", three, out, overlay=True) == 0 and not stub


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("killed_after", ["the overlay of b", "the mask of b", "half a row"])
def test_a_killed_command_goes_on_without_force(tmp_path, stub, three, monkeypatch, killed_after, force):
    out = tmp_path / "out"
    if force:
        predict.predict_folder("other", three, out, overlay=True)
    write = predict.write_atomically

    def killed(path, data):
        if path.name == "b.png" and killed_after == "the overlay of b":
            raise KeyboardInterrupt
        write(path, data)
        if path.name == "b.png" and killed_after == "the mask of b":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_atomically", killed)
        if killed_after == "half a row":
            predict.predict_folder("ckpt", three, out, overlay=True, force=force)
            text = (out / "predictions.csv").read_bytes()
            (out / "predictions.csv").write_bytes(text[: text.rindex(b"c.png") + 8])
            (out / "c.png").unlink(), (out / "c_overlay.jpg").unlink()
        else:
            with pytest.raises(KeyboardInterrupt):
                predict.predict_folder("ckpt", three, out, overlay=True, force=force)
    stub.clear()
    assert failures("ckpt", three, out, overlay=True) == 0
    assert len(stub) == (1 if killed_after == "half a row" else 2)
    rows = rows_of(out)
    assert sorted(rows) == ["a.png", "b.png", "c.png"] and all(row["confidence"] for row in rows.values())


def test_what_is_refused_leaves_the_list_alone(tmp_path, stub, three):
    out = tmp_path / "out"
    predict.predict_folder("ckpt", three, out)
    before = (out / "predictions.csv").read_bytes()

    def too_few(task, parts):
        raise ValueError("the cluster has CPU 2")

    with pytest.raises(ValueError, match="has CPU 2"):
        predict.predict_folder("ckpt", three, out, force=True, spread=too_few)
    assert (out / "predictions.csv").read_bytes() == before
    (out / "predictions.csv").write_text("id,label\n1,2\n")
    with pytest.raises(ValueError, match=r"predictions.csv: its columns are \['id', 'label'\]"):
        predict.predict_folder("ckpt", three, out, force=True)
    assert (out / "predictions.csv").read_text() == "id,label\n1,2\n"


def test_a_mask_that_another_network_has_replaced_or_of_an_older_image_is_not_taken(tmp_path, stub, three):
    out = tmp_path / "out"
    predict.predict_folder("ckpt", three, out)
    predict.predict_folder("other", three / "b.png", out, force=True)
    with pytest.raises(ValueError, match=r"b.png exists already"):
        predict.predict_folder("ckpt", three, out)
    predict.predict_folder("ckpt", three, out, force=True)
    assert len(rows_of(out)) == 3
    Image.fromarray(picture(64, 64)).save(three / "c.png")
    with pytest.raises(ValueError, match=r"c.png exists already"):
        predict.predict_folder("ckpt", three, out)


@pytest.mark.parametrize("name", ["a,b.png", 'q"uote.png', "new\nline.png", "ümlaut.png", "latin\udce9.png"])
def test_any_file_name(tmp_path, stub, name):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture(64, 64)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(source / name)
    assert failures("ckpt", source, tmp_path / "out") == 0
    stub.clear()
    assert failures("ckpt", source, tmp_path / "out") == 0 and not stub


@pytest.mark.parametrize(("checkpoint_", "views"), [("other", {}), ("ckpt", {"window_px": 32})])
def test_another_network_or_other_settings_are_no_continuation(tmp_path, stub, three, checkpoint_, views):
    predict.predict_folder("ckpt", three, tmp_path / "out")
    with pytest.raises(ValueError, match=r"a.png exists already.*--force"):
        predict.predict_folder(checkpoint_, three, tmp_path / "out", **views)
    stub.clear()
    assert failures(checkpoint_, three, tmp_path / "out", force=True, **views) == 0
    assert len(stub) == 3 and len(rows_of(tmp_path / "out")) == 3


def test_more_kinds_of_files_are_added_and_foreign_ones_kept(tmp_path, stub, three):
    out = tmp_path / "out"
    predict.predict_folder("ckpt", three, out, probabilities=True)
    stub.clear()
    predict.predict_folder("ckpt", three, out)
    assert not stub, "masks that are there need nothing new"
    (out / "b_overlay.jpg").write_text("mine")
    with pytest.raises(ValueError, match=r"b_overlay.jpg exists already"):
        predict.predict_folder("ckpt", three, out, overlay=True)
    (out / "b_overlay.jpg").unlink()
    assert failures("ckpt", three, out, overlay=True) == 0 and len(stub) == 3
    assert {row["also"] for row in rows_of(out).values()} == {".npz _overlay.jpg"}
    stub.clear()
    predict.predict_folder("ckpt", three, out, overlay=True, probabilities=True)
    assert not stub


def test_rows_of_other_images_stay(tmp_path, stub, three):
    predict.predict_folder("ckpt", three / "a.png", tmp_path / "out")
    predict.predict_folder("ckpt", three / "c.png", tmp_path / "out")
    assert list(rows_of(tmp_path / "out")) == ["a.png", "c.png"]


def test_parts_by_workers_give_the_same_files_and_rows(tmp_path, stub, three):
    (three / "d.png").write_text("no image")

    def spread(task, parts):
        task = pickle.loads(pickle.dumps(task))  # as to another process
        return [task(part) for part in reversed(parts)]

    assert failures("ckpt", three, tmp_path / "one") == 1
    assert failures("ckpt", three, tmp_path / "many", spread=functools.partial(spread)) == 1
    one, many = rows_of(tmp_path / "one"), rows_of(tmp_path / "many")
    assert one == many and len(one) == 3
    for name in one:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
