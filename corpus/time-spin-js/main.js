// Computes for ever.
for (;;) {}
