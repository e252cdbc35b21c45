"""Judge0's official Python SDK, as it is published, against a live server.

The server is named by JUDGE0_CE_ENDPOINT and JUDGE0_EXTRA_CE_ENDPOINT, as for any program that uses it.
"""

import os
import subprocess
import tomllib
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import judge0
import pytest
from judge0 import File, Filesystem, Flavor, LanguageAlias, Status, Submission, TestCase

LANGUAGES = Path(os.environ["GAVEL_LANGUAGES"])

# Whose sample is a program in which language, by the SDK's names.
SAMPLES = {
    "ASSEMBLY": "assembly",
    "BASH": "bash",
    "C": "c",
    "CLOJURE": "clojure",
    "COBOL": "cobol",
    "COMMON_LISP": "lisp",
    "CPP": "cpp",
    "CPP_CLANG": "cpp-clang",
    "CPP_GCC": "cpp",
    "CSHARP": "csharp",
    "CSHARP_MONO": "csharp",
    "C_CLANG": "c-clang",
    "C_GCC": "c",
    "D": "d",
    "ELIXIR": "elixir",
    "ERLANG": "erlang",
    "EXECUTABLE": "executable",
    "FORTRAN": "fortran",
    "GO": "go",
    "GROOVY": "groovy",
    "HASKELL": "haskell",
    "JAVA": "java",
    "JAVASCRIPT": "javascript",
    "JAVA_JDK": "java",
    "JAVA_OPENJDK": "java",
    "KOTLIN": "kotlin",
    "LUA": "lua",
    "MULTI_FILE": "multi-file",
    "NIM": "nim",
    "OBJECTIVE_C": "objective-c",
    "OCAML": "ocaml",
    "OCTAVE": "octave",
    "PASCAL": "pascal",
    "PERL": "perl",
    "PHP": "php",
    "PLAIN_TEXT": "text",
    "PROLOG": "prolog",
    "PYTHON": "python3",
    "PYTHON3": "python3",
    "PYTHON3_PYPY": "pypy3",
    "PYTHON_FOR_ML": "python3",
    "PYTHON_PYPY": "pypy3",
    "R": "r",
    "RUBY": "ruby",
    "RUST": "rust",
    "SCALA": "scala",
    "SQLITE": "sql",
    "TYPESCRIPT": "typescript",
}


@pytest.fixture(scope="module")
def client():
    return judge0.get_client(Flavor.CE)


@pytest.fixture(scope="module")
def installed(client):
    """The languages that the server has a toolchain for, as its own API tells."""
    listed = httpx.get(f"{client.endpoint}/api/v1/languages").raise_for_status().json()["languages"]
    return {language["id"] for language in listed if language["available"]}


def test_a_client_learns_what_the_server_is(client):
    assert client.endpoint == os.environ["JUDGE0_CE_ENDPOINT"]
    assert client.version in ("1.13.1", "1.14.0")
    assert {language.name.split(" ")[0] for language in client.languages} >= {"C", "C++", "Python", "Java", "Bash"}
    assert [status["id"] for status in client.get_statuses()] == list(range(1, 15))
    bash = client.get_language(client.get_language_id(LanguageAlias.BASH))
    assert bash.name.startswith("Bash (") and not bash.is_archived
    assert client.config.max_submission_batch_size > 1 and client.config.cpu_time_limit > 0
    assert not client.is_language_supported(-1)
    extra = judge0.get_client(Flavor.EXTRA_CE)
    assert extra.version in ("1.13.1-extra", "1.14.0-extra")


def test_a_program_without_a_language_is_python():
    result = judge0.run(source_code="print('hello, world')")
    assert (result.stdout, result.status) == ("hello, world\n", Status.ACCEPTED)


def test_every_field_of_a_result_is_there(client):
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    result = judge0.run(client=client, source_code="read name; echo hi $name; echo oops >&2; exit 3", stdin="Bob",
                        language=judge0.BASH)
    assert (result.stdout, result.stderr) == ("hi Bob\n", "oops\n")
    assert (result.status, result.exit_code, result.exit_signal) == (Status.RUNTIME_ERROR_NZEC, 3, None)
    assert b64decode(result.message).decode() == "Exited with error status 3"
    assert result.time >= 0 and result.wall_time > 0 and result.memory > 0
    assert result.compile_output is None
    # Who keeps the token comes back with nothing else.
    again = client.get_submission(Submission(token=result.token))
    assert (again.stdout, again.token) == (result.stdout, result.token)
    created, finished = (moment.replace(tzinfo=timezone.utc) for moment in (result.created_at, result.finished_at))
    assert before < created <= finished < datetime.now(timezone.utc) + timedelta(seconds=5)


def test_text_of_the_world_comes_back(client):
    result = judge0.run(client=client, source_code="cat; echo ž 你好", stdin="žluťoučký\n", language=judge0.BASH)
    assert result.stdout == "žluťoučký\nž 你好\n"


def test_several_programs_at_once_keep_their_order(client):
    programs = [Submission(source_code=f"echo {n}", language=judge0.BASH) for n in range(2 * 20 + 1)]
    results = judge0.run(client=client, submissions=programs)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(len(programs))]
    mixed = [
        Submission(source_code="echo bash", language=judge0.BASH),
        Submission(source_code="print('python')", language=judge0.PYTHON),
        Submission(source_code='#include <stdio.h>\nint main(void) { puts("c"); }', language=judge0.C),
    ]
    assert [result.stdout for result in judge0.run(client=client, submissions=mixed)] == ["bash\n", "python\n", "c\n"]


def test_one_can_go_away_and_come_back(client):
    submission = judge0.async_run(client=client, source_code="sleep 0.5; echo late", language=judge0.BASH)
    assert submission.status is None and submission.token is not None
    assert judge0.wait(client=client, submissions=submission).stdout == "late\n"


@pytest.mark.parametrize("bob", [("Bob", "hi Bob"), ["Bob", "hi Bob"], TestCase("Bob", "hi Bob"),
                                 {"input": "Bob", "expected_output": "hi Bob"}])
def test_test_cases(client, bob):
    source = "read name; echo hi $name"
    result = judge0.run(client=client, source_code=source, language=judge0.BASH, test_cases=bob)
    assert (result.stdin, result.expected_output, result.status) == ("Bob", "hi Bob", Status.ACCEPTED)
    results = judge0.run(client=client, source_code=source, language=judge0.BASH, test_cases=[bob, ("Eve", "hi Bob")])
    assert [result.status for result in results] == [Status.ACCEPTED, Status.WRONG_ANSWER]
    programs = [Submission(source_code=source, language=judge0.BASH),
                Submission(source_code="print('hi ' + input())", language=judge0.PYTHON)]
    results = judge0.run(client=client, submissions=programs, test_cases=[bob, ("Eve", "hi Eve")])
    assert [(result.stdin, result.status) for result in results] == 2 * [("Bob", Status.ACCEPTED), ("Eve", Status.ACCEPTED)]


def test_the_rule_of_comparison(client):
    for printed, expected, status in [
        (r"printf '7 \n\n'", "7", Status.ACCEPTED),
        (r"printf '7\0\n'", "7\r\n", Status.ACCEPTED),
        (r"printf ' 7'", "7", Status.WRONG_ANSWER),
        ("exit 0", "", Status.WRONG_ANSWER),
    ]:
        result = judge0.run(client=client, source_code=printed, expected_output=expected, language=judge0.BASH)
        assert result.status == status, (printed, expected)


def test_files_lie_beside_the_program(client):
    files = Filesystem(content=[File(name="./my_dir1/my_file1.txt", content="hello from my_file.txt"),
                                File(name="bytes", content=bytes(range(256)))])
    result = judge0.run(client=client, source_code="cat ./my_dir1/my_file1.txt; wc -c < bytes", language=judge0.BASH,
                        additional_files=files)
    assert (result.stdout, result.status) == ("hello from my_file.txt256\n", Status.ACCEPTED)


def test_a_program_of_many_files(client):
    files = [File(name="compile", content="g++ -o main main.cpp lib.cpp\n"), File(name="run", content="./main\n"),
             File(name="main.cpp", content="int answer();\n#include <cstdio>\nint main() { printf(\"%d\\n\", answer()); }\n"),
             File(name="lib.cpp", content="int answer() { return 42; }\n")]
    result = judge0.run(client=client, source_code="", language=judge0.MULTI_FILE,
                        additional_files=Filesystem(content=files))
    assert (result.stdout, result.status) == ("42\n", Status.ACCEPTED), result
    result = judge0.run(client=client, source_code="", language=judge0.MULTI_FILE,
                        additional_files=Filesystem(content=files[1:]))
    assert (result.status, result.exit_code) == (Status.RUNTIME_ERROR_NZEC, 127), result
    broken = [files[0], files[1], files[2]]
    result = judge0.run(client=client, source_code="", language=judge0.MULTI_FILE,
                        additional_files=Filesystem(content=broken))
    assert result.status == Status.COMPILATION_ERROR and "lib.cpp" in result.compile_output
    result = judge0.run(client=client, source_code="", language=judge0.MULTI_FILE,
                        additional_files=Filesystem(content=[File(name="readme", content="no script")]))
    assert (result.status, result.exit_code) == (Status.RUNTIME_ERROR_NZEC, 127)
    assert "No such file or directory" in result.stderr


def test_a_program_as_a_binary(client, tmp_path):
    subprocess.run(["gcc", "-static", "-x", "c", "-", "-o", tmp_path / "hello"], check=True,
                   input=b'#include <stdio.h>\nint main(void) { puts("hello, world"); }')
    result = judge0.run(client=client, source_code=(tmp_path / "hello").read_bytes(), language=judge0.EXECUTABLE)
    assert (result.stdout, result.status) == ("hello, world\n", Status.ACCEPTED)


def test_compilers_and_their_options(client):
    source = "#include <stdio.h>\nint main(int argc, char **argv) { printf(\"%d %s\\n\", N, argv[1]); }"
    result = judge0.run(client=client, source_code=source, language=judge0.C, compiler_options="-DN=7",
                        command_line_arguments="'a b'")
    assert (result.stdout, result.status) == ("7 a b\n", Status.ACCEPTED), result
    result = judge0.run(client=client, source_code=source, language=judge0.C)
    assert result.status == Status.COMPILATION_ERROR and "N" in result.compile_output and result.stdout is None


def test_programs_that_go_wrong(client):
    def run(source, **more):
        return judge0.run(client=client, source_code=source, language=judge0.C, **more)

    result = run("int main(void) { for (;;); }", cpu_time_limit=0.5)
    assert (result.status, b64decode(result.message)) == (Status.TIME_LIMIT_EXCEEDED, b"Time limit exceeded")
    result = run("#include <stdlib.h>\nint main(void) { abort(); }")
    assert (result.status, result.exit_signal) == (Status.RUNTIME_ERROR_SIGABRT, 6)
    result = run("int main(void) { return *(volatile int *)0; }")
    assert (result.status, result.exit_signal) == (Status.RUNTIME_ERROR_SIGSEGV, 11)


def test_what_the_server_refuses(client):
    def refused(status, **attributes):
        with pytest.raises(httpx.HTTPStatusError) as raised:
            judge0.run(client=client, **{"source_code": "echo", "language": judge0.BASH, **attributes})
        assert raised.value.response.status_code == status
        return raised.value.response.json()

    assert refused(422, cpu_time_limit=1000) == {"cpu_time_limit": ["must be less than or equal to 15.0"]}
    assert refused(422, source_code=" ") == {"source_code": ["can't be blank"]}
    assert refused(422, language=judge0.MULTI_FILE, source_code="") == {"additional_files": ["can't be blank"]}
    with pytest.raises(RuntimeError, match="does not support language"):
        judge0.run(client=client, source_code="x", language=150000)
    with pytest.raises(httpx.HTTPStatusError) as raised:
        client.get_submission(Submission(token="00000000-0000-4000-8000-000000000000"))
    assert raised.value.response.status_code == 404


def sample(name):
    """A language's sample as a submission, and what it prints."""
    folder = LANGUAGES / SAMPLES[name]
    spec = tomllib.loads((folder / "language.toml").read_text())["sample"]
    files = [File(name=file, content=(folder / file).read_bytes()) for file in spec.get("files", [])]
    submission = Submission(
        source_code=(folder / spec["source"]).read_bytes() if "source" in spec else "",
        language=LanguageAlias[name],
        stdin=spec.get("stdin", ""),
        expected_output=spec["expected"],
        additional_files=Filesystem(content=files) if files else None,
    )
    return submission, spec["expected"]


@pytest.mark.parametrize("flavor", list(Flavor), ids=lambda flavor: flavor.name)
def test_every_language_that_the_sdk_knows_and_the_server_has(flavor, installed):
    client = judge0.get_client(flavor)
    known = [alias for alias in LanguageAlias if client.get_language_id(alias) != -1]
    supported = {alias.name for alias in known if client.is_language_supported(alias)}
    expected = {alias.name for alias in known if SAMPLES.get(alias.name) in installed}
    assert supported == expected, supported ^ expected
    wrong = []
    for name in sorted(supported):
        submission, output = sample(name)
        result = judge0.run(client=client, submissions=submission)
        if (result.status, result.stdout) != (Status.ACCEPTED, output):
            wrong.append((name, result.status.name, result.stdout, result.stderr, result.compile_output))
    assert not wrong
    print(f"{flavor.name}: {len(supported)} of {len(known)} languages: {' '.join(sorted(supported))}")
