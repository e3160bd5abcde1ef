// Two things at once: how much faster is a guest with two CPUs than with one?
//   busy   two processes that compute
//   futex  two threads that compute, and after every 2,000 steps count under a lock made of a futex
// A row each, as ../../../shared/bench prints them: RESULT name check=... secs=...
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUSY = 300000000, ROUNDS = 200000, STEPS = 2000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t compute(uint64_t x, long steps) {
    for (long n = 0; n < steps; n++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static void report(const char *name, uint64_t check, double since) {
    printf("RESULT %s check=%llx secs=%.4f\n", name, (unsigned long long)check, now() - since);
    fflush(stdout);
}

static void busy(void) {
    uint64_t *out = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double since = now();
    for (int n = 0; n < 2; n++) {
        if (fork() == 0) {
            out[n] = compute(n + 1, BUSY);
            _exit(0);
        }
    }
    while (wait(0) > 0) {}
    report("busy", out[0] ^ out[1], since);
}

// 0 free, 1 taken, 2 taken and somebody waits.
static atomic_int lock;
static uint64_t counted, sum;

static void take(void) {
    int seen = 0;
    if (atomic_compare_exchange_strong(&lock, &seen, 1)) return;
    if (seen != 2) seen = atomic_exchange(&lock, 2);
    while (seen != 0) {
        syscall(SYS_futex, &lock, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
        seen = atomic_exchange(&lock, 2);
    }
}

static void give(void) {
    if (atomic_exchange(&lock, 0) == 2) syscall(SYS_futex, &lock, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

static void *hammer(void *seed) {
    uint64_t x = (uintptr_t)seed;
    for (int n = 0; n < ROUNDS; n++) {
        x = compute(x, STEPS);
        take();
        counted++;
        sum += x;
        give();
    }
    return 0;
}

int main(void) {
    busy();
    pthread_t threads[2];
    double since = now();
    for (uintptr_t n = 0; n < 2; n++) pthread_create(&threads[n], 0, hammer, (void *)(n + 1));
    for (int n = 0; n < 2; n++) pthread_join(threads[n], 0);
    if (counted != 2 * ROUNDS) printf("lost: %llu of %d\n", (unsigned long long)counted, 2 * ROUNDS);
    report("futex", sum, since);
    return counted != 2 * ROUNDS;
}
