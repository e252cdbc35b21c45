-- Callbacks: a job that names a URL leaves a row here in the transaction that ends it, and the row stays
-- until its job is erased. So no end of a job is forgotten, whenever the server dies.

-- Whom the job tells of its end, as host:port; NULL for nobody. It goes through the hot tables with the job, so
-- that whoever ends the job knows without another look, and a job without a callback costs nothing more.
ALTER TABLE pending ADD COLUMN callback TEXT;
ALTER TABLE running ADD COLUMN callback TEXT;

-- One row for each ended job with a callback.
CREATE TABLE deliveries (
    id         BLOB    PRIMARY KEY NOT NULL, -- the job's
    host       TEXT    NOT NULL,             -- host:port
    state      TEXT    NOT NULL,             -- pending, delivered, given_up
    attempt    INTEGER NOT NULL DEFAULT 0,   -- attempts begun: the fence, only ever rises
    tries      INTEGER NOT NULL DEFAULT 0,   -- attempts that came to an end: rows in delivery_tries
    due_at     INTEGER,                      -- when it may be claimed (next); NULL once it is over
    node       TEXT,                         -- who has it; due_at is the end of the lease then
    created_at INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT, WITHOUT ROWID;
-- Has all that a claim looks at, so that what cannot be called now costs no row.
CREATE INDEX deliveries_due ON deliveries (due_at, id, host) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_node ON deliveries (node) WHERE node IS NOT NULL;

-- The log: what became of each attempt.
CREATE TABLE delivery_tries (
    id          BLOB    NOT NULL,
    n           INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_ms REAL    NOT NULL,
    status_code INTEGER,
    error       TEXT,
    PRIMARY KEY (id, n)
) STRICT, WITHOUT ROWID;
