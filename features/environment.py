"""One Wess for all features, started by `scripts/with-wess behave features`; a connection for each scenario."""

import os

from client import Wess

NEEDED = ("WESS_NATS", "WESS_HTTP", "WESS_ADMIN")


def before_all(context):
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise SystemExit(f"no {', '.join(missing)}: run `scripts/with-wess behave features`")


def before_scenario(context, scenario):
    context.wess = Wess(nats_url=os.environ["WESS_NATS"], http_url=os.environ["WESS_HTTP"])


def after_scenario(context, scenario):
    context.wess.close()
