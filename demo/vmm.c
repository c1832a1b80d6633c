// SPDX-License-Identifier: GPL-2.0
/* The virtual machine: memory, vCPUs, the ports the guest talks through. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "demo.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB	(21U << 26)
#endif

extern const char guest_blob[], guest_blob_end[];

static void kick(int sig)
{
	(void)sig;		/* KVM_RUN returning EINTR is all we want */
}

void check_hugepages(u64 size)
{
	const char *path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
	/* Source and destination, each on memory of its own. */
	unsigned long want = 2 * (size >> 21), have = 0;
	FILE *f = fopen(path, "r");

	if (!f || fscanf(f, "%lu", &have) != 1)
		die(EX_CANT, "no 2 MiB hugetlb pages in this kernel (CONFIG_HUGETLBFS)");
	fclose(f);
	if (have < want)
		die(EX_CANT, "%lu free 2 MiB hugetlb pages and %lu are needed; run: echo %lu > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
		    have, want, want);
}

static int create_gmem(struct vm *vm)
{
	struct kvm_create_guest_memfd g = {
		.size = vm->size,
		.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	int fd, flags = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS);

	if (flags < 0 || (flags & g.flags) != g.flags)
		die(EX_CANT, "KVM has no guest_memfd that can be mapped; boot Linux 6.18 or later with CONFIG_KVM_GUEST_MEMFD=y");
	fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &g);
	if (fd < 0)
		die(EX_FAIL, "KVM_CREATE_GUEST_MEMFD: %s", strerror(errno));
	return fd;
}

/* Everything but the memslot, which may have to wait for a userfaultfd. */
void vm_create(struct vm *vm, const struct config *cfg)
{
	struct sigaction sa = { .sa_handler = kick };
	unsigned int i;

	memset(vm, 0, sizeof(*vm));
	vm->size = cfg->size;
	vm->ncpus = cfg->vcpus;
	vm->memfd = -1;
	vm->target = ~0u;
	vm->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigaction(SIGUSR1, &sa, NULL);

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		die(EX_CANT, "/dev/kvm: %s; load kvm-amd or kvm-intel on a machine with virtualization, as root",
		    strerror(errno));
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		die(EX_CANT, "KVM_CREATE_VM: %s; this machine's KVM does not work",
		    strerror(errno));
	/* Intel without unrestricted guest: out of the way of our memory. */
	ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);

	switch (cfg->mem) {
	case MEM_MEMFD:
		vm->memfd = memfd_create("guest", MFD_CLOEXEC);
		break;
	case MEM_HUGETLB:
		vm->memfd = memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB |
					 MFD_HUGE_2MB);
		break;
	case MEM_GMEM:
		vm->memfd = create_gmem(vm);
		break;
	default:
		break;
	}
	if (cfg->mem == MEM_MEMFD || cfg->mem == MEM_HUGETLB) {
		if (vm->memfd < 0)
			die(EX_CANT, "memfd_create for %s: %s",
			    mem_names[cfg->mem], strerror(errno));
		if (ftruncate(vm->memfd, vm->size))
			die(EX_FAIL, "ftruncate: %s", strerror(errno));
	}
	if (cfg->mem == MEM_ANON)
		vm->mem = mmap(NULL, vm->size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	else
		vm->mem = mmap(NULL, vm->size, PROT_READ | PROT_WRITE,
			       MAP_SHARED, vm->memfd, 0);
	if (vm->mem == MAP_FAILED)
		die(cfg->mem == MEM_HUGETLB ? EX_CANT : EX_FAIL,
		    "mmap of %s: %s", mem_names[cfg->mem], strerror(errno));

	vm->run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	for (i = 0; i < vm->ncpus; i++) {
		struct vcpu *v = &vm->cpu[i];

		v->vm = vm;
		v->idx = i;
		v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, i);
		if (v->fd < 0)
			die(EX_FAIL, "KVM_CREATE_VCPU: %s", strerror(errno));
		v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE,
			      MAP_SHARED, v->fd, 0);
		if (v->run == MAP_FAILED)
			die(EX_FAIL, "mmap of a vCPU: %s", strerror(errno));
	}
}

void vm_set_memslot(struct vm *vm, const struct config *cfg)
{
	struct kvm_userspace_memory_region2 r2 = {
		.flags = KVM_MEM_GUEST_MEMFD,
		.memory_size = vm->size,
		.userspace_addr = (uintptr_t)vm->mem,
		.guest_memfd = vm->memfd,
	};
	struct kvm_userspace_memory_region r = {
		.memory_size = vm->size,
		.userspace_addr = (uintptr_t)vm->mem,
	};
	int ret;

	if (cfg->bound)
		ret = ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &r2);
	else
		ret = ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
	if (ret)
		die(EX_FAIL, "memslot%s: %s", cfg->bound ? " bound to guest_memfd" : "",
		    strerror(errno));
}

/* The same memory at another address, which no userfaultfd watches. */
void *vm_map_again(struct vm *vm)
{
	void *p = mmap(NULL, vm->size, PROT_READ | PROT_WRITE, MAP_SHARED,
		       vm->memfd, 0);

	if (p == MAP_FAILED)
		die(EX_FAIL, "second mapping: %s", strerror(errno));
	return p;
}

static u32 guest_first_page(u64 size)
{
	return (GUEST_GEN + size / GUEST_PAGE * 4 + GUEST_PAGE - 1) / GUEST_PAGE;
}

u32 guest_data_pages(u64 size)
{
	return size / GUEST_PAGE - guest_first_page(size);
}

/* Source only: the destination starts out with nothing. */
void vm_load_guest(struct vm *vm, u32 seed)
{
	struct guest_boot *boot = (void *)(vm->mem + GUEST_BOOT);
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1,
		.db = 1, .s = 1, .g = 1,
	}, data = code;
	unsigned int i;

	data.selector = 16;
	data.type = 3;
	if (guest_blob_end - guest_blob > GUEST_CODE_MAX)
		die(EX_FAIL, "guest code is too large");
	memcpy(vm->mem + GUEST_CODE, guest_blob, guest_blob_end - guest_blob);
	boot->ncpus = vm->ncpus;
	boot->first = guest_first_page(vm->size);
	boot->npages = guest_data_pages(vm->size);
	boot->seed = seed;

	for (i = 0; i < vm->ncpus; i++) {
		struct kvm_regs regs = {
			.rip = GUEST_CODE,
			.rsp = GUEST_STACK + (i + 1) * GUEST_PAGE - 16,
			.rax = i,	/* the argument of guest_main() */
			.rflags = 2,
		};
		struct kvm_sregs s;

		if (ioctl(vm->cpu[i].fd, KVM_GET_SREGS, &s))
			die(EX_FAIL, "KVM_GET_SREGS: %s", strerror(errno));
		s.cs = code;
		s.ds = s.es = s.fs = s.gs = s.ss = data;
		s.cr0 = 0x11;	/* PE, ET: protected mode, no paging */
		if (ioctl(vm->cpu[i].fd, KVM_SET_SREGS, &s) ||
		    ioctl(vm->cpu[i].fd, KVM_SET_REGS, &regs))
			die(EX_FAIL, "setting vCPU registers: %s", strerror(errno));
	}
}

static void notify(struct vm *vm)
{
	u64 one = 1;

	if (write(vm->event, &one, sizeof(one)) < 0)
		return;		/* the counter is full: it is readable */
}

static void trouble(struct vcpu *v, const char *what, int err)
{
	char msg[160];

	snprintf(msg, sizeof(msg), "vCPU %d: %s%s%s", v->idx, what,
		 err ? ": " : "", err ? strerror(err) : "");
	v->vm->trouble(msg);
	notify(v->vm);
}

static void port_io(struct vcpu *v)
{
	u32 *val = (void *)((char *)v->run + v->run->io.data_offset);

	switch (v->run->io.port) {
	case PORT_TARGET:
		__atomic_add_fetch(&v->polls, 1, __ATOMIC_RELEASE);
		*val = __atomic_load_n(&v->vm->target, __ATOMIC_ACQUIRE);
		break;
	case PORT_BAD:
		if (!v->bad++)
			v->first_bad = *val;
		break;
	case PORT_VERIFIED:
		v->verified = *val;
		break;
	case PORT_DIGEST:
		v->digest = *val;
		break;
	case PORT_DONE:
		__atomic_store_n(&v->done, true, __ATOMIC_RELEASE);
		notify(v->vm);
		break;
	}
}

static void set_stepping(struct vcpu *v, bool on)
{
	struct kvm_guest_debug dbg = {
		.control = on ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP : 0,
	};

	if (!ioctl(v->fd, KVM_SET_GUEST_DEBUG, &dbg))
		v->stepping = on;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	char what[64];

	while (!v->done) {
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			/*
			 * Leave only from here: an exit for port I/O is not
			 * complete, and the registers are not right, before
			 * KVM_RUN was entered once more.  immediate_exit makes
			 * that entry return without running the guest.
			 */
			if (__atomic_load_n(&v->vm->stop, __ATOMIC_ACQUIRE))
				break;
			if (errno == EINTR)
				continue;
			trouble(v, "KVM_RUN", errno);
			break;
		}
		if (!v->t_first) {
			v->t_first = now_ns();
			if (v->stepping)
				set_stepping(v, false);
		}
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
			port_io(v);
			break;
		case KVM_EXIT_DEBUG:
		case KVM_EXIT_INTR:
			break;
		default:
			if (__atomic_load_n(&v->vm->stop, __ATOMIC_ACQUIRE))
				return NULL;
			snprintf(what, sizeof(what), "guest ended with KVM exit %u",
				 v->run->exit_reason);
			trouble(v, what, 0);
			return NULL;
		}
	}
	return NULL;
}

/* With step, the first instruction is single-stepped to tell when it ran. */
void vm_start(struct vm *vm, bool step)
{
	unsigned int i;

	vm->stop = false;
	for (i = 0; i < vm->ncpus; i++) {
		struct vcpu *v = &vm->cpu[i];

		v->run->immediate_exit = 0;
		v->t_first = 0;
		if (step)
			set_stepping(v, true);
		if (pthread_create(&v->thread, NULL, vcpu_thread, v))
			die(EX_FAIL, "no thread for a vCPU");
		v->joinable = true;
	}
}

/*
 * Stop all vCPUs; false if one does not come back.  A vCPU that waits for a
 * page sleeps in handle_userfault(), which a signal interrupts; not so if KVM
 * got there by copy_from_user(), as its instruction emulator does: that fault is
 * tried again until the page comes or the process is killed.
 */
bool vm_halt(struct vm *vm)
{
	unsigned int i, tries;

	__atomic_store_n(&vm->stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < vm->ncpus; i++)
		vm->cpu[i].run->immediate_exit = 1;
	for (i = 0; i < vm->ncpus; i++)
		if (vm->cpu[i].joinable)
			pthread_kill(vm->cpu[i].thread, SIGUSR1);
	for (i = 0; i < vm->ncpus; i++) {
		struct vcpu *v = &vm->cpu[i];

		for (tries = 0; v->joinable; tries++) {
			struct timespec ts;

			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_nsec += 20000000;
			if (ts.tv_nsec >= 1000000000) {
				ts.tv_nsec -= 1000000000;
				ts.tv_sec++;
			}
			v->joinable = pthread_timedjoin_np(v->thread, NULL, &ts);
			if (v->joinable && tries > 150)
				return false;
			if (v->joinable)
				pthread_kill(v->thread, SIGUSR1);
		}
	}
	return true;
}

bool vm_done(struct vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->ncpus; i++)
		if (!__atomic_load_n(&vm->cpu[i].done, __ATOMIC_ACQUIRE))
			return false;
	return true;
}

/* Pages written by the slowest or the fastest vCPU, as far as we know. */
u32 vm_steps(struct vm *vm, bool lowest)
{
	u32 n = lowest ? ~0u : 0;
	unsigned int i;

	for (i = 0; i < vm->ncpus; i++) {
		u32 p = __atomic_load_n(&vm->cpu[i].polls, __ATOMIC_ACQUIRE);

		if (lowest ? p < n : p > n)
			n = p;
	}
	return n * GUEST_POLL;
}

void vcpu_save(struct vcpu *v, struct vcpu_state *s)
{
	if (ioctl(v->fd, KVM_GET_REGS, &s->regs) ||
	    ioctl(v->fd, KVM_GET_SREGS, &s->sregs) ||
	    ioctl(v->fd, KVM_GET_FPU, &s->fpu))
		die(EX_FAIL, "reading vCPU state: %s", strerror(errno));
}

void vcpu_restore(struct vcpu *v, const struct vcpu_state *s)
{
	if (ioctl(v->fd, KVM_SET_SREGS, &s->sregs) ||
	    ioctl(v->fd, KVM_SET_REGS, &s->regs) ||
	    ioctl(v->fd, KVM_SET_FPU, &s->fpu))
		die(EX_FAIL, "setting vCPU state: %s", strerror(errno));
}
