// 20,000 threads one after another.
#include <pthread.h>
#include <stdio.h>
static void *nothing(void *arg) { return arg; }
int main(void) {
    pthread_t t;
    int n = 0;
    for (; n < 20000; n++) { if (pthread_create(&t, 0, nothing, 0)) break; pthread_join(t, 0); }
    printf("%d\n", n);
}
