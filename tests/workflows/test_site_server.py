import http.client
import json
import re
from urllib.parse import urlsplit

import pytest

from neuron_atlas.workflows.site_server import (
    listen,
    main,
    report_folder,
    runs_server,
    served_runs,
)
from tests.tasks.report.site.browsing import served, served_by
from tests.waiting import PATIENCE_S


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "out" / "artifacts" / "report" / "9f2c"
    (folder / "site" / "data").mkdir(parents=True)
    (folder / "index.html").write_text("<p>a page</p>")
    (folder / "site" / "index.html").write_text("<p>a site</p>")
    (folder / "site" / "data" / "index.js").write_text('atlas("index",{});')
    (folder / "image.webp").touch()
    (folder / ".parts").mkdir()
    (folder / ".parts" / "1.json").write_text("{}")
    (tmp_path / "secret.html").write_text("a secret")
    (folder / "way-out.html").symlink_to(tmp_path / "secret.html")
    files = ["artifacts/report/9f2c/figures/x.svg", "artifacts/report/9f2c/index.html"]
    manifest = {"artifacts": {"report": {"files": files}}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    return folder


def ask(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_a_run_is_served_by_its_output_folder_or_its_reports(report):
    out = report.parents[2]
    assert report_folder(out) == report_folder(report) == report


def test_pages_and_scripts_have_types_that_browsers_run(report):
    with served(report) as address:
        status, headers, body = ask(address, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body == "<p>a page</p>"
        assert ask(address, "/site/")[2] == "<p>a site</p>"
        status, headers, body = ask(address, "/site/data/index.js")
        assert headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert body.startswith("atlas(")
        assert ask(address, "/image.webp")[1]["Content-Type"] == "image/webp"


def test_a_folder_of_several_runs_offers_all_of_them_and_their_comparisons(report):
    out = report.parents[2]
    second = out / "artifacts" / "report" / "b#3"
    second.mkdir()
    (second / "index.html").write_text("<p>a second page</p>")
    (out / "sweep" / "capture.layers=0,1").mkdir(parents=True)
    (out / "sweep" / "capture.layers=0,1" / "index.html").write_text("<p>compared</p>")
    (out / "runs").mkdir()
    for name, folder, layer in (("one", report, 0), ("two", second, 1)):
        files = {
            "report": [(folder / "index.html").relative_to(out).as_posix()],
            "types": [f"artifacts/classify/{name}/types-layer-{layer:03d}.parquet"],
        }
        artifacts = {
            artifact: {"stage": artifact, "fingerprint": name, "files": names}
            for artifact, names in files.items()
        }
        manifest = {"artifacts": artifacts, "run": name, "finished": f"2026-{name}"}
        manifest["subject"] = "<llava>"
        (out / "runs" / f"{name}.json").write_text(json.dumps(manifest))
        (out / "manifest.json").write_text(json.dumps(manifest))
    runs = served_runs(out)
    assert [(run.name, run.layers) for run in runs] == [("two", (1,)), ("one", (0,))]
    with served_by(runs_server(runs)) as address:
        status, headers, body = ask(address, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "&lt;llava&gt;" in body
        links = re.findall(r'href="([^"]+)"', body)
        said = [ask(address, f"/{link}")[2] for link in links]
        assert said == ["<p>compared</p>", "<p>a second page</p>", "<p>a page</p>"]
        assert ask(address, "/manifest.json")[0] == 404
        assert ask(address, "/artifacts/report/9f2c/way-out.html")[0] == 404
        assert ask(address, "/", Host="evil.example")[0] == 400


def test_a_folder_of_one_run_or_of_a_report_has_no_list(report):
    assert len(served_runs(report.parents[2])) == 1
    assert served_runs(report) == []


@pytest.mark.parametrize(
    "path",
    [
        "/site/data/",
        "/.parts/1.json",
        "/way-out.html",
        "/../../../../secret.html",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret.html",
        "/none.html",
    ],
)
def test_folders_hidden_files_and_all_outside_are_not_found(report, path):
    with served(report) as address:
        status, _, body = ask(address, path)
        assert status == 404
        assert "secret" not in body.replace("secret.html", "")


def test_only_reading_is_possible(report):
    with served(report) as address:
        assert [ask(address, "/", method)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3
        assert ask(address, "/", "HEAD")[0] == 200


def test_on_loopback_a_page_elsewhere_cannot_read_it_under_a_name_of_its_own(report):
    with served(report) as address:
        assert ask(address, "/", Host="evil.example")[0] == 400
        assert ask(address, "/", Host=f"localhost:{urlsplit(address).port}")[0] == 200


def test_open_to_others_it_answers_under_any_name(report):
    with served(report, "0.0.0.0") as address:
        assert ask(address, "/", Host="atlas.example")[0] == 200


def test_it_listens_on_loopback_by_default():
    with listen() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["s3://bucket/run"],
            "s3://bucket/run: only a local folder can be served. Copy the report",
        ),
        (["nowhere"], "nowhere: no report is here; name the out= folder of a finished run"),
        (["--port", "99999", "{out}"], "--port: must be 0 to 65535"),
        (["--port", "http", "{out}"], "invalid int value"),
    ],
)
def test_a_wrong_call_gets_a_line_and_status_2(report, capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main([one.format(out=report.parents[2]) for one in arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_gets_a_line_and_status_1(report, capsys):
    with served(report) as address, pytest.raises(SystemExit) as ended:
        main([str(report), "--port", str(urlsplit(address).port)])
    assert ended.value.code == 1
    assert "cannot listen" in capsys.readouterr().err
