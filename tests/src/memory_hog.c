// A version that eats memory: a service that runs, and takes a few megabytes more every few milliseconds until its own limit ends it.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    for (;;) {
        void *more = malloc(4 << 20);
        if (!more) abort();
        memset(more, 1, 4 << 20);
        usleep(40000);
    }
}
