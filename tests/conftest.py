pytest_plugins = ["tests.loopback.fixture"]
