"""The process of the emulated account: ministack with `gaps` closed, on a free port of 127.0.0.1.

`python -m deployed.account PYTHON` runs the functions with the interpreter PYTHON. It prints its port, and ends when
its standard input ends.
"""

import os
import socket
import sys
import threading
from typing import Any

LOOPBACK = "127.0.0.1"


def main(python: str) -> None:
    """Serve until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr
    with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        # ministack reads these when it is imported.
        os.environ |= {"GATEWAY_PORT": str(port), "BIND_HOST": LOOPBACK, "MINISTACK_HOST": LOOPBACK}
        import uvicorn  # noqa: PLC0415
        from ministack.app import app  # noqa: PLC0415

        from deployed import gaps  # noqa: PLC0415

        if closed := gaps.close_all(python):
            sys.exit(
                "ministack has closed these gaps; remove them from tests/e2e/deployed/gaps.py: " + "; ".join(closed)
            )

        async def behind_tls(scope: Any, receive: Any, send: Any) -> None:
            # SAM's bucket denies requests without TLS.
            if scope["type"] == "http":
                scope = {**scope, "headers": [*scope["headers"], (b"x-forwarded-proto", b"https")]}
            await app(scope, receive, send)

        config = uvicorn.Config(behind_tls, lifespan="on", ws="none", log_level="warning", access_log=False)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        out.write(f"{port}\n")
        out.flush()
        uvicorn.Server(config).run([listener])


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
