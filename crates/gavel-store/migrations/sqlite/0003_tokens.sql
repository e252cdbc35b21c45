-- Who may use the API. A token itself is never stored, only a hash of it.
CREATE TABLE tokens (
    id              BLOB    PRIMARY KEY NOT NULL,
    name            TEXT    NOT NULL,
    owner           TEXT    NOT NULL,        -- as in jobs.owner
    hash            BLOB    NOT NULL UNIQUE, -- keyed hash of the secret, 32 bytes
    scopes          TEXT    NOT NULL,        -- words with commas between them
    rate_per_second INTEGER,
    rate_burst      INTEGER,
    jobs_per_day    INTEGER,
    concurrent      INTEGER,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER,
    revoked_at      INTEGER,
    last_used_at    INTEGER
) STRICT, WITHOUT ROWID;

-- The name of a token that was revoked may be given again.
CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked_at IS NULL;

-- Jobs that an owner submitted on a day (days since the Unix epoch, UTC). Counted and not looked up in
-- `jobs`: a job that is erased counts all the same.
CREATE TABLE owner_days (
    owner TEXT    NOT NULL,
    day   INTEGER NOT NULL,
    jobs  INTEGER NOT NULL,
    PRIMARY KEY (owner, day)
) STRICT, WITHOUT ROWID;

-- The jobs of an owner that have not ended: how many there are is asked at each insert with a quota.
CREATE INDEX jobs_owner_open ON jobs (owner) WHERE status = 'pending' AND owner IS NOT NULL;

-- token_changes: rises with each token that is created or revoked, by whichever program, so that a
-- running server need not read all of them to see that nothing is new.
INSERT INTO meta (name, value) VALUES ('token_changes', 0);
