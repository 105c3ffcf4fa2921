"""``headrace batch``: a file of prompts in, a file of answers out."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.admission.estimates import Estimates, Size
from headrace.cli.batch_bar import Bar
from headrace.cli.batch_job import Job
from headrace.cli.batch_rows import Wishes, rows
from headrace.cli.connection import Server, first_model
from headrace.cli.errors import told
from headrace.cli.options import loaded
from headrace.cli.own_server import own_settings

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.settings import Settings


@click.command("batch")
@click.argument(
    "source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--output", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", help="Of rows that name none. Default: the first that there is.")
@click.option("--url", envvar="HEADRACE_URL", help="A running server. Default: one of its own.")
@click.option("--api-key", envvar="HEADRACE_API_KEY", help="The server's key, if it wants one.")
@click.option("--template", help="The prompt, with columns in braces: 'Translate: {text}'.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of each answer.")
@click.option("--temperature", type=click.FloatRange(0, 2))
@click.option("--dry-run", is_flag=True, help="Only say how many rows and about how many tokens.")
@click.option("--config", metavar="FILE", help="Settings file (TOML) of its own server.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="On Ray Data: a cluster's address, `auto`, or `local`. Each worker has a server of its own, or asks --url.",
)
@click.option("--ray-workers", type=click.IntRange(1), help="Default: one on each machine.")
@click.pass_context
def command(
    ctx: click.Context,
    source: Path,
    output: Path | None,
    model: str | None,
    url: str | None,
    api_key: str | None,
    template: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    dry_run: bool,
    config: str | None,
    ray: str | None,
    ray_workers: int | None,
) -> None:
    """Have every row of IN (JSONL, CSV, TSV or Parquet) answered, into OUT (JSONL). A row has a column `prompt`, or
    `messages`, or those of --template; or it is one of OpenAI's batch files. Run the same command again, and it goes on
    where it was."""
    with told():
        wishes = Wishes(model, system, template, max_tokens, temperature)
        if dry_run:
            _estimate(source, wishes)
            return
        if output is None:
            raise click.UsageError("Missing option '-o' / '--output'.")
        batch: dict[str, Any] | None
        with Bar() as bar:
            if url is not None:
                server = Server(url, api_key)
                wishes = wishes._replace(model=model or first_model(server))
            elif model is None:
                wishes = wishes._replace(model=loaded(config, {}).settings.models[0].name)
            job = Job(source, output, wishes, bar.show)
            if ray is not None:
                batch = _spread(job, ray, ray_workers, url, api_key, config)
            elif url is not None:
                batch = job.run(server)
            else:
                batch = _alone(loaded(config, {}).settings, job)
        if batch is None:
            click.echo("Run the same command again, and it goes on.", err=True)
            ctx.exit(130)
        job.clear()
        ctx.exit(_tell(job, batch))


def _tell(job: Job, batch: dict[str, Any]) -> int:
    """Say how it went; returns the exit status."""
    counts, usage = batch["request_counts"], batch.get("usage") or {}
    click.echo(
        f"{job.output}: {counts['completed']} of {counts['total']} rows,"
        f" {usage.get('input_tokens', 0)} tokens in, {usage.get('output_tokens', 0)} out",
        err=True,
    )
    if counts["failed"]:
        click.echo(f"{job.errors}: {counts['failed']} rows that failed", err=True)
    return 1 if counts["failed"] else 0


def _estimate(source: Path, wishes: Wishes) -> None:
    count = text_bytes = messages = answers = 0
    for row in rows(source, wishes):
        body = row["body"]
        count += 1
        parts = body.get("messages") or [body.get("prompt") or body.get("input") or ""]
        messages += len(parts)
        text_bytes += sum(len(_text(part).encode()) for part in parts)
        answers += body.get("max_tokens") or body.get("max_output_tokens") or 0
    tokens = Estimates().prompt_tokens(Size(text_bytes, 4 * messages))
    most = f"at most {answers:,}" if answers else "no bound (--max-tokens sets one)"
    click.echo(f"{count:,} rows, about {tokens:,} tokens of prompts; of answers {most}")


def _text(part: Any) -> str:
    content = part.get("content", "") if isinstance(part, dict) else part
    return content if isinstance(content, str) else json.dumps(content)


def _spread(
    job: Job,
    address: str,
    workers: int | None,
    url: str | None,
    key: str | None,
    config: str | None,
) -> dict[str, Any]:
    from headrace.cli.batch_ray import Cluster, RayJob

    where = None if config is None else str(Path(config).resolve())
    return RayJob(job, Cluster(address, workers, url, key, where)).run()


def _alone(settings: Settings, job: Job) -> dict[str, Any] | None:
    """Run the job on a server of its own, on a socket that nobody else finds. None: it was stopped before its end."""
    from headrace.app import serve

    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        uds = str(Path(folder) / "socket")
        client = _Client(job, Server("http://localhost", None, uds))
        job.prepare()
        serve(own_settings(settings, job.folder, uds), client.start)
        client.join()
    if client.error is not None:
        raise client.error
    return client.batch


class _Client:
    """Follows the job from a thread, and stops the server when it is over."""

    def __init__(self, job: Job, server: Server) -> None:
        self._job = job
        self._server = server
        self._thread: threading.Thread | None = None
        self.batch: dict[str, Any] | None = None
        self.error: BaseException | None = None

    def start(self, app: App) -> None:
        import asyncio

        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(app.stopping.set)

        self._thread = threading.Thread(target=self._run, args=(stop,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """The server has stopped: by our doing, or by Ctrl-C."""
        if self._thread is not None and (self.batch or self.error):
            self._thread.join()

    def _run(self, stop: Callable[[], None]) -> None:
        try:
            self.batch = self._job.run(self._server)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self.error = error
        finally:
            try:
                stop()
            except RuntimeError:
                pass  # it has stopped already
