"""Start the demo's server, and leave nothing behind when it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from pfd_iqa_hf.demo.assess import Assessor
from pfd_iqa_hf.demo.limits import BodyLimit

__all__ = ["PortError", "running"]

# Sessions of which gradio keeps the last values in memory.
_SESSIONS = 200

# Unless the user's environment says otherwise: nothing is reported to anybody, and the statistics
# of a monitoring page that is switched off are not worked out over all calls after every call.
_GRADIO_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",
}


class PortError(OSError):
    """The address cannot be listened on."""


@contextlib.contextmanager
def running(assessor: Assessor, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve inside the block.

    Args:
        assessor: Scores the pictures, within its limits.
        host: Address to listen on; others than 127.0.0.1 let other machines in.
        port: Port to listen on, 0 for any free one.

    Yields:
        The page's address.

    Raises:
        PortError: the port is taken, or the address is none of this machine.
        ImportError: gradio is not installed.
    """
    for name, value in _GRADIO_SETTINGS.items():
        os.environ.setdefault(name, value)
    port = _free_port(host, port)
    from pfd_iqa_hf.demo.uploads import private_cache, swept_regularly

    with private_cache() as cache:
        # Gradio reads the environment while the application is built.
        from starlette.middleware import Middleware

        from pfd_iqa_hf.demo.app import build_app
        from pfd_iqa_hf.demo.style import CSS, theme

        limits = assessor.limits
        blocks = build_app(assessor)
        try:
            # Whatever the environment could switch on is stated: no tunnel, no record of calls.
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                max_file_size=limits.max_file_bytes,
                state_session_capacity=_SESSIONS,
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                footer_links=["api"],
                theme=theme(),
                css=CSS,
                app_kwargs={"middleware": [Middleware(BodyLimit, limits=limits, cache=cache)]},
            )

            def forget_deleted() -> None:
                for known in blocks.temp_file_sets:
                    known.difference_update({f for f in list(known) if not os.path.exists(f)})

            with swept_regularly(cache, limits.cache_seconds, forget_deleted):
                yield address
        finally:
            blocks.close(verbose=False)


def _free_port(host: str, port: int) -> int:
    """Try the port; gradio would say of every reason that no port is free."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
            return int(trial.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortError(f"port {port} is taken; give another with --port") from error
        reason = error.strerror or str(error)
        raise PortError(f"cannot listen on {host}, port {port} ({reason})") from error
