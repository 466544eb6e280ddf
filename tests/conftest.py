pytest_plugins = ["tests.loopback.fixture", "tests.loopback.object_store"]
