// An initialised array of 4 GiB.
char big[4L << 30] = {1};
int main(void) { return big[123]; }
