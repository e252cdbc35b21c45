// Walks the directories, four levels deep, and lists those that it may write to, and special files outside /dev.
#define _GNU_SOURCE
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    if (ftw->level > 3 || !strncmp(path, "/proc", 5)) return FTW_SKIP_SUBTREE;
    if ((S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode)) && strncmp(path, "/dev/", 5)) printf("device %s\n", path);
    if (type == FTW_D && access(path, W_OK) == 0) {
        printf("%s\n", path);
        return FTW_SKIP_SUBTREE;
    }
    return FTW_CONTINUE;
}
int main(void) {
    const char *roots[] = {"/box", "/dev", "/tmp", "/etc", "/usr", "/var", "/"};
    for (unsigned i = 0; i < 6; i++) nftw(roots[i], visit, 64, FTW_PHYS | FTW_ACTIONRETVAL);
    printf("/ %s\n", access("/", W_OK) ? "closed" : "WRITABLE");
}
