// Starts 3,000 threads; the limit answers EAGAIN.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static void *wait_here(void *arg) { sleep(10); return arg; }
int main(void) {
    pthread_t t;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, 16384);
    int n = 0, e = 0;
    for (; n < 3000 && !(e = pthread_create(&t, &a, wait_here, 0)); n++) { }
    printf("%s after %s\n", e ? strerrorname_np(e) : "no limit", n < 64 ? "fewer than 64" : "64 or more");
}
