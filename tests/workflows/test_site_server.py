import http.client
import json
import threading
from contextlib import contextmanager

import pytest

from neuron_atlas.tasks.artifacts.location import location
from neuron_atlas.workflows.site_server import main, report_folder, report_server
from tests.loopback.object_store import BUCKET
from tests.waiting import PATIENCE_S


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "out" / "artifacts" / "report" / "9f2c"
    (folder / "site" / "data").mkdir(parents=True)
    (folder / "index.html").write_text("<p>a page</p>")
    (folder / "site" / "index.html").write_text("<p>a site</p>")
    (folder / "site" / "data" / "index.js").write_text('atlas("index",{});')
    (folder / ".parts").mkdir()
    (folder / ".parts" / "1.json").write_text("{}")
    (tmp_path / "secret.html").write_text("a secret")
    (folder / "way-out.html").symlink_to(tmp_path / "secret.html")
    files = ["artifacts/report/9f2c/figures/x.svg", "artifacts/report/9f2c/index.html"]
    manifest = {"artifacts": {"report": {"files": files}}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    return folder


@contextmanager
def served(root, host="127.0.0.1"):
    with report_server(root, host, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE_S)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_a_run_is_served_by_its_output_folder_or_its_reports(report):
    out = report.parents[2]
    assert report_folder(out) == report_folder(report) == report


@pytest.fixture
def on_a_store(report, store):
    """The same run on an object store, with a secret beside it."""
    store.client.put(str(report.parents[2]), f"{BUCKET}/a group/run", recursive=True)
    store.client.put(str(report.parents[3] / "secret.html"), f"{BUCKET}/a group/secret.html")
    return f"s3://{BUCKET}/a group/run"


def test_a_run_on_an_object_store_is_served_from_there(on_a_store):
    root = report_folder(location(on_a_store))
    assert str(root) == f"{on_a_store}/artifacts/report/9f2c"
    with served(root) as server:
        status, headers, body = ask(server, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert (body, headers["Content-Length"]) == ("<p>a page</p>", "13")
        assert ask(server, "/site/")[2] == ask(server, "/site/index.html?x#y")[2] == "<p>a site</p>"
        assert ask(server, "/site/data/index.js")[1]["Content-Type"].startswith("text/javascript")
        assert ask(server, "/", "HEAD")[0] == 200
        assert ask(server, "/", Host="evil.example")[0] == 403
        for path in ("/none.html", "/site", "/site/data/", "/.parts/1.json"):
            assert ask(server, path)[0] == 404, path
        for path in ("/../../../../secret.html", "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret.html"):
            status, _, body = ask(server, path)
            assert (status, "a secret" in body) == (404, False)


def test_a_store_that_fails_in_mid_site_is_said_and_asked_again(on_a_store, monkeypatch, capsys):
    root = report_folder(location(on_a_store))
    with served(root) as server:
        with monkeypatch.context() as patch:

            def refused(path):
                raise PermissionError("the key has run out")

            patch.setattr("neuron_atlas.workflows.site_server.read_file", refused)
            assert ask(server, "/")[0] == 502
        assert "the key has run out" in capsys.readouterr().err
        assert ask(server, "/")[0] == 200


def test_a_store_that_cannot_be_read_gets_a_line_and_status_1(on_a_store, monkeypatch, capsys):
    def refused(self, *arguments, **named):
        raise PermissionError("nobody's key")

    monkeypatch.setattr(type(location(on_a_store)), "read_text", refused)
    with pytest.raises(SystemExit) as ended:
        main([on_a_store])
    assert ended.value.code == 1
    assert f"{on_a_store}: cannot be read: nobody's key" in capsys.readouterr().err


def test_pages_and_scripts_have_types_that_browsers_run(report):
    with served(report) as server:
        status, headers, body = ask(server, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert body == "<p>a page</p>"
        assert ask(server, "/site/")[2] == "<p>a site</p>"
        status, headers, body = ask(server, "/site/data/index.js")
        assert headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert body.startswith("atlas(")


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
    with served(report) as server:
        status, _, body = ask(server, path)
        assert status == 404
        assert "secret" not in body.replace("secret.html", "")


def test_only_reading_is_possible(report):
    with served(report) as server:
        assert [ask(server, "/", method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
        assert ask(server, "/", "HEAD")[0] == 200


def test_on_loopback_a_page_elsewhere_cannot_read_it_under_a_name_of_its_own(report):
    with served(report) as server:
        assert ask(server, "/", Host="evil.example")[0] == 403
        assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_it_listens_on_loopback_unless_told_otherwise(report):
    with report_server(report, port=0) as server:
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://somewhere/run"], "ftp:// is no object store that is known"),
        (["nowhere"], "nowhere: no report is here; name the out= folder of a run that has ended"),
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
    with served(report) as server, pytest.raises(SystemExit) as ended:
        main([str(report), "--port", str(server.server_port)])
    assert ended.value.code == 1
    assert "cannot listen" in capsys.readouterr().err
