: sum  pad 80 stdin read-line 2drop pad swap evaluate + 0 .r cr ;
sum
