// Prints its environment.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern char **environ;
static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
int main(void) {
    int n = 0;
    while (environ[n]) n++;
    qsort(environ, n, sizeof *environ, by_name);
    for (int i = 0; i < n; i++) puts(environ[i]);
}
