// Reads a file that was sent with the job.
#include <stdio.h>
int main(void) {
    char line[64];
    FILE *f = fopen("data/in.txt", "r");
    if (!f || !fgets(line, sizeof line, f)) { perror("data/in.txt"); return 1; }
    printf("%s", line);
}
