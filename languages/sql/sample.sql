CREATE TABLE numbers (n INTEGER);
INSERT INTO numbers VALUES (3), (4);
SELECT sum(n) FROM numbers;
