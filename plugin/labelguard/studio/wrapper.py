"""Label Studio's own command with another last step: it is served with labelguard's page script in it.

This file is run by the Python of Label Studio's environment, where labelguard is not installed: it must not
import anything but the standard library, Django and Label Studio. Arguments are those of ``label-studio``.

``LABELGUARD_UPSTREAM`` is labelguard's address; without it, pages are served untouched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):  # noqa: A002
        pass


def main() -> None:
    """Run Label Studio's command line."""
    # This script's folder is first on sys.path and would shadow modules of the same names.
    here = str(Path(__file__).parent)
    sys.path[:] = [p for p in sys.path if p != here]
    import label_studio.server as server

    def serve(host: str, port: object) -> None:
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
        with make_server(host or "127.0.0.1", int(str(port)), application, _Server, _QuietHandler) as httpd:
            print(f"Label Studio is ready on port {port}", flush=True)
            httpd.serve_forever()

    server._app_run = serve
    server.main()


if __name__ == "__main__":
    main()
