"""What schemathesis must know of this API and cannot learn from the document."""

import json
import zlib

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def one_line(ctx, value):
    """A stream of one job: its answer is one line, which the document describes."""
    return {"data": value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"}


@schemathesis.deserializer("application/x-ndjson")
def first_line(ctx, response):
    """Lines are alike; for none at all there is nothing that could be wrong."""
    lines = [json.loads(line) for line in response.content.splitlines() if line]
    return lines[0] if lines else {"index": 0, "error": {"type": "about:blank", "title": "", "status": 400}}


def tame(job):
    """Random jobs get no further than the door: there is always something wrong with them. Three of four
    become random programs for a shell, which end at once; the others stay as they are."""
    if not isinstance(job, dict) or zlib.crc32(repr(job).encode()) % 4 == 0:
        return
    if "language_id" in job:
        # A submission as Judge0 knows it: what is not given has a default.
        keep = {"stdin", "expected_output", "redirect_stderr_to_stdout"}
        job["language_id"] = 46
    else:
        keep = {"stdin", "expected_output", "stderr_to_stdout", "metadata", "collect"}
        job["language"] = "bash"
    program = job.get("source_code")
    job["source_code"] = program if isinstance(program, str) and program.strip() else "cat; exit 3"
    for name in set(job) - keep - {"language", "language_id", "source_code"}:
        del job[name]
    if any("\0" in text for text in strings(job.get("metadata"))) or not all(map(plain, strings(job.get("collect")))):
        job.pop("metadata", None)
        job.pop("collect", None)


def strings(value):
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def plain(path):
    return path.isalnum() and path.isascii()


@schemathesis.hook
def before_call(context, case, kwargs):
    if not isinstance(case.body, dict):
        return
    lists = [case.body[several] for several in ("jobs", "submissions") if several in case.body]
    for job in lists[0] if lists and isinstance(lists[0], list) else [case.body]:
        tame(job)
    # Random keys are refused, and equal ones are known already.
    if case.headers and zlib.crc32(repr(case.body).encode()) % 4:
        case.headers.pop("Idempotency-Key", None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Judge0 does not tell a wrong method from a wrong path, and neither do its routes here."""
    of_judge0 = "judge0" in case.operation.definition.raw.get("tags", [])
    return not (of_judge0 and failure.title == "Wrong response to undeclared method" and response.status_code == 404)
