// Calls everything that the filter should refuse, with arguments that the kernel itself would refuse differently.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static const struct { const char *name; long number; } calls[] = {
    {"ptrace", SYS_ptrace}, {"process_vm_readv", SYS_process_vm_readv}, {"process_vm_writev", SYS_process_vm_writev}, {"kcmp", SYS_kcmp},
    {"pidfd_getfd", 438}, {"process_madvise", 440}, {"perf_event_open", SYS_perf_event_open}, {"bpf", SYS_bpf}, {"userfaultfd", SYS_userfaultfd},
    {"lookup_dcookie", SYS_lookup_dcookie},
    {"io_uring_setup", 425}, {"io_uring_enter", 426}, {"io_uring_register", 427},
    {"io_setup", SYS_io_setup}, {"io_submit", SYS_io_submit}, {"io_destroy", SYS_io_destroy}, {"io_getevents", SYS_io_getevents},
    {"keyctl", SYS_keyctl}, {"add_key", SYS_add_key}, {"request_key", SYS_request_key},
    {"init_module", SYS_init_module}, {"finit_module", SYS_finit_module}, {"delete_module", SYS_delete_module},
    {"kexec_load", SYS_kexec_load}, {"kexec_file_load", SYS_kexec_file_load}, {"reboot", SYS_reboot}, {"swapon", SYS_swapon}, {"swapoff", SYS_swapoff},
    {"acct", SYS_acct}, {"quotactl", SYS_quotactl}, {"quotactl_fd", 443}, {"syslog", SYS_syslog}, {"iopl", SYS_iopl}, {"ioperm", SYS_ioperm},
    {"vhangup", SYS_vhangup}, {"sethostname", SYS_sethostname}, {"setdomainname", SYS_setdomainname}, {"settimeofday", SYS_settimeofday},
    {"clock_settime", SYS_clock_settime}, {"adjtimex", SYS_adjtimex}, {"clock_adjtime", SYS_clock_adjtime}, {"uselib", SYS_uselib},
    {"ustat", SYS_ustat}, {"sysfs", SYS_sysfs}, {"_sysctl", SYS__sysctl}, {"nfsservctl", SYS_nfsservctl},
    {"open_by_handle_at", SYS_open_by_handle_at}, {"name_to_handle_at", SYS_name_to_handle_at}, {"fanotify_init", SYS_fanotify_init}, {"fanotify_mark", SYS_fanotify_mark},
    {"mbind", SYS_mbind}, {"set_mempolicy", SYS_set_mempolicy}, {"set_mempolicy_home_node", 450}, {"migrate_pages", SYS_migrate_pages}, {"move_pages", SYS_move_pages},
    {"modify_ldt", SYS_modify_ldt}, {"memfd_secret", 447},
    {"unshare", SYS_unshare}, {"setns", SYS_setns}, {"mount", SYS_mount}, {"umount2", SYS_umount2}, {"pivot_root", SYS_pivot_root}, {"chroot", SYS_chroot},
    {"fsopen", 430}, {"fsconfig", 431}, {"fsmount", 432}, {"fspick", 433}, {"open_tree", 428}, {"move_mount", 429}, {"mount_setattr", 442}, {"clone3", 435},
};
int main(void) {
    int reached = 0;
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        errno = 0;
        long r = syscall(calls[i].number, -1L, -1L, -1L, -1L, -1L, -1L);
        int denied = r == -1 && (errno == EPERM || errno == ENOSYS);
        printf("%s %s%s\n", calls[i].name, r == -1 ? strerrorname_np(errno) : "DONE", denied ? "" : " REACHED THE KERNEL");
        reached += !denied;
    }
    printf("%d reached the kernel\n", reached);
}
