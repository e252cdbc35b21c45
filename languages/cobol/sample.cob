identification division.
program-id. adder.
data division.
working-storage section.
01 line-in pic x(40).
01 a pic s9(9).
01 b pic s9(9).
01 total pic -(9)9.
procedure division.
    accept line-in
    unstring line-in delimited by all space into a b
    compute total = a + b
    display function trim(total)
    stop run.
