"""`destination import`: send a history of messages to an endpoint."""

import json
from contextlib import ExitStack
from pathlib import Path

import click

from destination.commands.options import ca_file_option, json_option, parse_endpoint
from destination.deployment.target import LOCAL_URL, demo_key_of, trusted_authority
from destination.importing.batches import DEFAULT_BATCH_MESSAGES, batches
from destination.importing.deliver import BatchSender
from destination.importing.pace import ImportPace
from destination.importing.play import ImportRun
from destination.importing.progress import Display
from destination.importing.report import ImportReport
from destination.importing.start import check_apart, find, load_state, local_stores, open_rejects
from destination.importing.state import Recipient
from destination.importing.tally import ImportTally
from destination.segment.client import deployment_url
from handler.split import MAX_BATCH_MESSAGES

GIVE_UP_AFTER_SECONDS = 600
MAX_CONCURRENCY = 64

STATE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option("--url", default=LOCAL_URL, show_default=True, help="The endpoint, or any of its routes.")
@click.option("--api-key", help="The API key. The default is a local server's valid demo key.")
@ca_file_option
@click.option(
    "--state",
    "state_path",
    type=STATE,
    help="The file for the progress; by default next to the first FILE.",
)
@click.option("--restart", is_flag=True, help="Ignore the saved progress, and send everything again.")
@click.option("--rejects", "rejects_path", type=STATE, help="A file to which a line is added for each reject, as JSON.")
@click.option(
    "--batch-size",
    default=DEFAULT_BATCH_MESSAGES,
    show_default=True,
    type=click.IntRange(1, MAX_BATCH_MESSAGES),
    help="Maximum of messages per request; fewer while the endpoint is overloaded.",
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, MAX_CONCURRENCY),
    help="Number of concurrent requests.",
)
@click.option(
    "--give-up-after",
    "give_up_after_seconds",
    metavar="SECONDS",
    default=GIVE_UP_AFTER_SECONDS,
    show_default=True,
    type=click.IntRange(0),
    help="How long to retry while nothing is accepted.",
)
@json_option("Print a JSON object at the end, for programs.")
def import_(
    *,
    files: tuple[str, ...],
    url: str,
    api_key: str | None,
    ca_file: str | None,
    state_path: Path | None,
    restart: bool,
    rejects_path: Path | None,
    batch_size: int,
    concurrency: int,
    give_up_after_seconds: int,
    as_json: bool,
) -> None:
    """Import a history of messages from files.

    Files are JSON Lines, plain or gzip, or folders of them, such as Segment's archive in S3. Each line is a message as
    Segment's libraries send it, or as Segment stores and delivers it. - is standard input.

    Run the same command again to continue after an interruption: it skips accepted messages. For standard input, this
    needs --state and the same input. No message is stored twice. Two equal lines without a messageId are one message.

    Exits with 0 if everything is accepted, and with 3 if everything was sent and some messages were rejected. Exits
    with 1 if not everything was sent: then run it again. It also exits with 1 if its counts do not add up to the lines
    that it read.

    \b
    Example:
      destination import history.jsonl --url https://destination.example.com --api-key ddk_…
    """
    endpoint = parse_endpoint(url)
    found = find(files)
    for option, path in {"--state": state_path, "--rejects": rejects_path}.items():
        check_apart(option, path, files)
    api_key = api_key or demo_key_of(endpoint)
    deployment = deployment_url(endpoint)
    recipient = Recipient.of(deployment, api_key, local_stores(endpoint))
    state = load_state(files, state_path, recipient, restart=restart)
    progress = {source.name: state.progress_of(source) for source in found.sources}
    to_read = [source for source in found.sources if source.is_stream or not progress[source.name].is_whole]
    tally = ImportTally()
    stopped = None
    if to_read:
        pace = ImportPace(size=batch_size, give_up_after_seconds=give_up_after_seconds)
        sender = BatchSender(
            deployment, api_key, pace, connections=concurrency, ca_file=trusted_authority(endpoint, ca_file)
        )
        state.save()
        with ExitStack() as stack:
            if rejects_path:
                tally.rejects_file = open_rejects(rejects_path, stack)
            display = stack.enter_context(Display(found.sources))
            play = ImportRun(sender, pace, state, tally, concurrency=concurrency, told=display)
            starts = ((source, progress[source.name].mark) for source in to_read)
            stopped = play.run(batches(starts, most_messages=lambda: pace.size))
        if state.is_empty:
            state.remove()
    report = ImportReport(found, state, tally, already=len(found.sources) - len(to_read), stopped=stopped)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        report.show()
    report.exit()
