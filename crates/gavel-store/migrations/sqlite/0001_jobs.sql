-- The book. Times are integer microseconds since the Unix epoch, UTC; names that end in _ms are
-- durations in milliseconds. Ids are UUIDs as 16 bytes: half of their text in the table and in each
-- index, and UUID v7 sorts by age as bytes too. To read them: select lower(hex(id)) from jobs.

-- One row for each job, written when it is submitted and once more when it ends. In between only the
-- narrow tables `pending` and `running` change, so a claim never rewrites sources or input; until the
-- job ends, `status` here is 'pending' (the view `job_states` says which of them are running).
-- What listings read stands before the large values, which then stay unread in overflow pages.
CREATE TABLE jobs (
    seq               INTEGER PRIMARY KEY,
    id                BLOB    NOT NULL UNIQUE,
    owner             TEXT,
    language          TEXT    NOT NULL,
    status            TEXT    NOT NULL DEFAULT 'pending',
    verdict           TEXT,
    reason            TEXT,
    priority          INTEGER NOT NULL DEFAULT 0,
    worker_id         INTEGER,
    node              TEXT,
    attempt           INTEGER NOT NULL DEFAULT 0,
    exit_code         INTEGER,
    signal            INTEGER,
    execution_time_ms REAL,
    wall_time_ms      REAL,
    memory_usage_kb   INTEGER,
    compile_time_ms   REAL,
    compile_cached    INTEGER,
    stdout_truncated  INTEGER,
    stderr_truncated  INTEGER,
    input_files       INTEGER NOT NULL DEFAULT 0, -- rows in job_files, so that most jobs need no look
    output_files      INTEGER NOT NULL DEFAULT 0,
    error_message     TEXT,
    created_at        INTEGER NOT NULL,
    started_at        INTEGER,
    completed_at      INTEGER,
    evidence          TEXT,                       -- JSON: name -> number
    request           TEXT    NOT NULL,           -- JSON: what no query filters by (limits, args, env, ...)
    source_code       BLOB    NOT NULL,
    stdin             BLOB    NOT NULL,
    expected_output   BLOB,
    stdout            BLOB,
    stderr            BLOB,
    compile_output    BLOB
) STRICT;

-- Partial where most rows would only make the index large, because each index costs on the way of every
-- job: plain ones on status, worker_id and created_at took 7 us of CPU more than these, of 32 for a job's
-- whole life. Windows of time need none: ids sort by time (see id_skew_ms in `meta`). Nor do workers: what
-- they run stands in `running`, which is never larger than the pool.
CREATE INDEX jobs_language ON jobs (language, id);
CREATE INDEX jobs_owner ON jobs (owner, id) WHERE owner IS NOT NULL;
CREATE INDEX jobs_completed_at ON jobs (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX jobs_status ON jobs (status, id) WHERE status IN ('failed', 'cancelled');
CREATE INDEX jobs_verdict ON jobs (verdict, id) WHERE verdict <> 'accepted';

-- Files that a job brought (kind 0) or left behind (kind 1).
CREATE TABLE job_files (
    seq        INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    path       TEXT    NOT NULL,
    executable INTEGER NOT NULL DEFAULT 0,
    content    BLOB    NOT NULL
) STRICT;
CREATE INDEX job_files_seq ON job_files (seq, kind, n);

-- The hot set: jobs that wait, in the order in which they are handed out (lowest rank first).
CREATE TABLE pending (
    rank       INTEGER NOT NULL, -- created_at less 10 s for each step of priority
    id         BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    attempt    INTEGER NOT NULL, -- attempts begun: the fence, only ever rises
    tries      INTEGER NOT NULL, -- attempts that count
    created_at INTEGER NOT NULL,
    PRIMARY KEY (rank, id)
) STRICT, WITHOUT ROWID;

-- The hot set: claims. Never more rows than workers.
CREATE TABLE running (
    id            BLOB    PRIMARY KEY NOT NULL,
    seq           INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    tries         INTEGER NOT NULL,
    worker_id     INTEGER NOT NULL,
    node          TEXT    NOT NULL,
    lease_until   INTEGER NOT NULL,
    cancel_wanted INTEGER NOT NULL DEFAULT 0,
    rank          INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    started_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Idempotency keys: kept as long as their job, and at least 24 hours.
CREATE TABLE idempotency (
    owner       TEXT    NOT NULL, -- '' without tokens
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    job_id      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    job_gone    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_job ON idempotency (job_id);
CREATE INDEX idempotency_gone ON idempotency (created_at) WHERE job_gone = 1;

-- Small facts about the book itself.
-- id_skew_ms: how far the time inside an id was ever from its job's created_at.
CREATE TABLE meta (
    name  TEXT    PRIMARY KEY NOT NULL,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('id_skew_ms', 1000), ('checked', 0);

-- For people: every job with its true status.
CREATE VIEW job_states AS
SELECT lower(hex(j.id)) AS id, j.language,
       CASE WHEN r.id IS NULL THEN j.status ELSE 'running' END AS status,
       j.verdict, coalesce(r.worker_id, j.worker_id) AS worker_id,
       datetime(j.created_at / 1000000, 'unixepoch') AS created_at
FROM jobs j LEFT JOIN running r ON r.id = j.id;
