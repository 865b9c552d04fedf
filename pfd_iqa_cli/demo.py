"""`pfd-iqa demo`: a page for people and an interface for programs on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from typing import Annotated

import typer

from pfd_iqa_cli.messages import interrupts_raise, say
from pfd_iqa_cli.model_options import (
    Device,
    Dtype,
    Model,
    check_dtype,
    checked_dtype,
    loading_errors_told,
    prepare_libraries,
)

__all__ = ["demo"]

_MEGABYTE = 1 << 20
_NO_TELEMETRY = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_LOCAL = ("127.0.0.1", "localhost", "::1")


def demo(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on, 0 for any free one.")
    ] = 7860,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "fp32",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse pictures with more pixels.")
    ] = 64_000_000,
    max_file_size: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Refuse files with more megabytes.")
    ] = 32,
    queue_size: Annotated[
        int, typer.Option(min=1, help="Calls that may wait; one more is refused at once.")
    ] = 64,
) -> int:
    """Serve a page that scores pictures, and the same for programs (gradio_client).

    It ends with Ctrl-C. Uploaded pictures are deleted after minutes and when it ends; nothing is
    sent to anybody.

    Exit code: 0 ended by you; 64 wrong usage, no gradio, or an address that cannot be used.
    """
    check_dtype(dtype)
    if importlib.util.find_spec("gradio") is None:
        raise typer.BadParameter('the demo needs gradio: pip install "pfd-iqa-hf[demo]"')
    for variable, value in _NO_TELEMETRY.items():
        # Before anything imports gradio or huggingface_hub, which look once.
        os.environ.setdefault(variable, value)
    prepare_libraries(device)
    from pfd_iqa_hf.demo.assess import Assessor
    from pfd_iqa_hf.demo.limits import Limits
    from pfd_iqa_hf.demo.serving import PortError, running

    limits = Limits(
        max_pixels=max_pixels, max_file_bytes=max_file_size * _MEGABYTE, queue_size=queue_size
    )
    with loading_errors_told(model):
        assessor = Assessor(model, device, checked_dtype(dtype), limits)
    interrupts_raise()
    ended = threading.Event()
    # What stops a container or a service; the upload cache must go then, too.
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with running(assessor, host, port) as address:
            say(f"the demo runs on {address} (Ctrl-C ends it)")
            if host not in _LOCAL:
                say("note: other machines can reach it; there is no password")
            ended.wait()
    except PortError as error:
        raise typer.BadParameter(str(error), param_hint="--port") from error
    except KeyboardInterrupt:
        say("ended")
    finally:
        assessor.close()
    return 0
