// SPDX-License-Identifier: GPL-2.0
/*
 * migrate: QEMU's post-copy migration and its background snapshot, with guest.S as the
 * guest.  A case passes when the migration went as asked for and the guest goes on at
 * the destination, and has not found a byte that it had not written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB		16	/* END in guest.S */
#define CASE_SECONDS	90
#define SNAPSHOT	"/tmp/snapshot"

static struct vm {
	const char *name;
	pid_t pid;
	int in, out;		/* of QMP */
	char line[16384];
	size_t len;
	char serial[32], log[32];	/* log: its stderr */
} src = { .name = "source" }, dst = { .name = "destination" };

static const struct memory {
	const char *name, *object;
} anon = { "anonymous", "memory-backend-ram" },
  memfd = { "memfd", "memory-backend-memfd,share=on" },
  hugetlb = { "hugetlb", "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M" };

static char why[1024];
static time_t deadline;
static int nr_results, nr_failed;

__attribute__((format(printf, 1, 2)))
static bool fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

static bool in_time(const char *what)
{
	if (time(NULL) <= deadline)
		return true;
	return fail("%s did not happen in time", what);
}

/* One line of QMP, without the events; it is in vm->line. */
static bool answer(struct vm *vm)
{
	struct pollfd pfd = { .fd = vm->out, .events = POLLIN };

	for (;;) {
		for (vm->len = 0; vm->len < sizeof(vm->line) - 1; vm->len++) {
			do {
				if (!in_time("an answer of QEMU"))
					return false;
			} while (poll(&pfd, 1, 1000) <= 0);
			if (read(vm->out, vm->line + vm->len, 1) != 1)
				return fail("the QEMU of the %s ended", vm->name);
			if (vm->line[vm->len] == '\n')
				break;
		}
		vm->line[vm->len] = 0;
		if (!strncmp(vm->line, "{\"timestamp\"", 12))
			continue;
		if (strstr(vm->line, "\"error\":"))
			return fail("%s: %s", vm->name, vm->line);
		return true;
	}
}

/* A command and its arguments, if it has some. */
__attribute__((format(printf, 3, 4)))
static bool qmp(struct vm *vm, const char *name, const char *fmt, ...)
{
	char arguments[256], command[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	vsnprintf(arguments, sizeof(arguments), fmt, ap);
	va_end(ap);
	len = snprintf(command, sizeof(command), "{'execute': '%s', 'arguments': {%s}}\n",
		       name, arguments);
	if (write(vm->in, command, len) != len)
		return fail("the QEMU of the %s ended", vm->name);
	return answer(vm);
}

/* The number after "KEY": of the last answer; -1 if there is none. */
static long number(struct vm *vm, const char *key)
{
	char quoted[64], *p;

	snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
	p = strstr(vm->line, quoted);
	return p ? atol(p + strlen(quoted)) : -1;
}

static bool start(struct vm *vm, const struct memory *memory, const char *options)
{
	char object[128], machine[64], serial[64], ram[16];
	const char *argv[32] = {
		"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-accel", "tcg,tb-size=8", "-machine", machine, "-m", ram, "-object", object,
		"-bios", "guest.bin", "-serial", serial, "-qmp", "stdio", options,
		options ? "defer" : NULL,
	};
	int in[2], out[2];

	snprintf(vm->serial, sizeof(vm->serial), "/tmp/%s.serial", vm->name);
	snprintf(vm->log, sizeof(vm->log), "/tmp/%s.log", vm->name);
	snprintf(serial, sizeof(serial), "file:%s", vm->serial);
	snprintf(machine, sizeof(machine), "pc,hpet=off,memory-backend=ram");
	snprintf(ram, sizeof(ram), "%dM", MIB);
	snprintf(object, sizeof(object), "%s,id=ram,size=%dM", memory->object, MIB);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		return fail("pipe: %s", strerror(errno));
	vm->pid = fork();
	if (vm->pid < 0)
		return fail("fork: %s", strerror(errno));
	if (!vm->pid) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(open(vm->log, O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
		execvp(argv[0], (char **)argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	vm->in = in[1];
	vm->out = out[0];
	return answer(vm) && qmp(vm, "qmp_capabilities", " ");
}

static void stop(struct vm *vm)
{
	if (vm->pid <= 0)
		return;
	kill(vm->pid, SIGKILL);
	waitpid(vm->pid, NULL, 0);
	close(vm->in);
	close(vm->out);
	vm->pid = 0;
}

/* The last round that the guest ended; -1: none, or it found something wrong. */
static long guest_round(struct vm *vm)
{
	char tail[128] = "", *end, *last, *bad;
	FILE *f = fopen(vm->serial, "re");

	if (!f)
		return -1;
	if (fseek(f, -100, SEEK_END))
		rewind(f);
	tail[fread(tail, 1, 100, f)] = 0;
	fclose(f);
	bad = strstr(tail, "BAD");
	if (bad) {
		fail("guest, %s: %.*s", vm->name, (int)strcspn(bad, "\n"), bad);
		return -1;
	}
	end = strrchr(tail, '\n');
	if (!end)
		return -1;
	*end = 0;
	last = strrchr(tail, '\n');
	return strtol(last ? last + 1 : tail, NULL, 16);
}

static bool guest_does(struct vm *vm, int rounds)
{
	long now, first = -1;

	for (;;) {
		now = guest_round(vm);
		if (why[0] || !in_time(vm == &src ? "guest's progress at the source" :
					"guest's progress at the destination"))
			return false;
		if (first < 0)
			first = now;
		if (now >= 0 && now - first >= rounds)
			return true;
		usleep(10000);
	}
}

static bool capability(struct vm *vm, const char *name)
{
	return qmp(vm, "migrate-set-capabilities",
		   "'capabilities': [{'capability': '%s', 'state': true}]", name);
}

/* In bytes per second, as is that of post-copy: most pages are to be asked for. */
static bool bandwidth(long bytes)
{
	return qmp(&src, "migrate-set-parameters",
		   "'max-bandwidth': %ld, 'max-postcopy-bandwidth': 4194304", bytes);
}

/* What QEMU had to say in its last KiB; as a comment, too, if asked for. */
static bool said(struct vm *vm, const char *word, bool print)
{
	char text[1025];
	FILE *f = fopen(vm->log, "re");
	size_t len;

	if (!f)
		return false;
	if (fseek(f, -1024, SEEK_END))
		rewind(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[len] = 0;
	for (char *line = strtok(print ? text : NULL, "\n"); line; line = strtok(NULL, "\n"))
		printf("# %s: %s\n", vm->name, line);
	return word && strstr(text, word);
}

/* Until the migration is in this state; SEEN counts the answers that say OTHER. */
static bool wait_for(struct vm *vm, const char *state, const char *other, int *seen)
{
	char quoted[64];

	for (;;) {
		if (!qmp(vm, "query-migrate", " "))
			return false;
		snprintf(quoted, sizeof(quoted), "\"status\": \"%s\"", state);
		if (strstr(vm->line, quoted))
			return true;
		if (strstr(vm->line, "\"status\": \"failed\"") ||
		    strstr(vm->line, "\"status\": \"postcopy-paused\"") ||
		    strstr(vm->line, "\"status\": \"completed\""))
			return fail("%s: not %s: %s", vm->name, state, vm->line);
		snprintf(quoted, sizeof(quoted), "\"status\": \"%s\"", other);
		if (seen && strstr(vm->line, quoted))
			++*seen;
		if (!in_time(state))
			return false;
		usleep(20000);
	}
}

static bool running(struct vm *vm)
{
	return qmp(vm, "query-status", " ") &&
		(strstr(vm->line, "\"status\": \"running\"") || fail("%s: %s", vm->name, vm->line));
}

static bool postcopy(const struct memory *memory, bool urgent)
{
	long requests, pages;

	if (!start(&src, memory, NULL) || !start(&dst, memory, "-incoming") ||
	    !capability(&src, "postcopy-ram") || !capability(&dst, "postcopy-ram"))
		return false;
	if (urgent &&
	    (!capability(&src, "postcopy-preempt") || !capability(&dst, "postcopy-preempt")))
		return false;
	/* The first pass of pre-copy would take some ten seconds. */
	if (!bandwidth(1 << 20) || !guest_does(&src, 3) ||
	    !qmp(&dst, "migrate-incoming", "'uri': 'unix:/tmp/migrate'") ||
	    !qmp(&src, "migrate", "'uri': 'unix:/tmp/migrate'") ||
	    !wait_for(&src, "active", "", NULL))
		return false;
	while (number(&src, "transferred") < 1 << 20) {
		usleep(20000);
		if (!in_time("1 MiB of pre-copy") || !qmp(&src, "query-migrate", " "))
			return false;
	}
	if (!qmp(&src, "migrate-start-postcopy", " ") ||
	    !wait_for(&src, "completed", "", NULL))
		return false;
	requests = number(&src, "postcopy-requests");
	pages = number(&src, "normal");
	if (!wait_for(&dst, "completed", "", NULL) || !running(&dst) || !guest_does(&dst, 5))
		return false;
	printf("# %ld pages, %ld requests; guest is in round %ld\n",
	       pages, requests, guest_round(&dst));
	return requests > 0 || fail("no page was asked for");
}

static void end_case(void)
{
	stop(&src);
	stop(&dst);
	unlink(src.serial);
	unlink(dst.serial);
	unlink("/tmp/migrate");
	unlink(SNAPSHOT);
}

/*
 * QEMU 7.2 names the block of a page only if it is not that of the page before, and forgets
 * that this one may have gone by the other channel.  What comes then goes to the wrong
 * block, mostly where a page is already ("File exists"), with any kernel.
 */
static bool preempt(const struct memory *memory)
{
	if (postcopy(memory, true))
		return true;
	if (!strstr(why, "postcopy-paused") || !said(&dst, "File exists", false))
		return false;
	printf("# once more, as QEMU paused: %.60s\n", why);
	end_case();
	why[0] = 0;
	deadline = time(NULL) + CASE_SECONDS;
	return postcopy(memory, true);
}

static bool snapshot(const struct memory *memory)
{
	long first, last, loaded;

	if (!start(&src, memory, NULL) || !capability(&src, "background-snapshot") ||
	    !bandwidth(4 << 20) || !guest_does(&src, 3) ||
	    !qmp(&src, "migrate", "'uri': 'exec:cat > %s'", SNAPSHOT))
		return false;
	first = guest_round(&src);
	if (!wait_for(&src, "completed", "", NULL))
		return false;
	last = guest_round(&src);
	if (!running(&src) || !guest_does(&src, 5))
		return false;
	if (last < first + 3)
		return fail("the guest did %ld rounds while the snapshot was taken", last - first);
	/* What is in there is one moment: the guest goes on from it as well. */
	if (!start(&dst, memory, "-incoming") ||
	    !qmp(&dst, "migrate-incoming", "'uri': 'exec:cat %s'", SNAPSHOT) ||
	    !wait_for(&dst, "completed", "", NULL) || !running(&dst) || !guest_does(&dst, 0))
		return false;
	loaded = guest_round(&dst);
	if (!guest_does(&dst, 5))
		return false;
	printf("# snapshot between the rounds %ld and %ld; loaded, the guest is in round %ld\n",
	       first, last, loaded);
	return true;
}

static void report(const char *what, const struct memory *memory, bool ok)
{
	if (!ok) {		/* what the guest says explains more */
		guest_round(&src);
		guest_round(&dst);
		said(&src, NULL, true);
		said(&dst, NULL, true);
	}
	end_case();
	if (!ok)
		printf("# %s\n", why);
	printf("%sok %d qemu %s, %s\n", ok ? "" : "not ", ++nr_results, what, memory->name);
	fflush(stdout);
	nr_failed += !ok;
	why[0] = 0;
	deadline = time(NULL) + CASE_SECONDS;
}

int main(void)
{
	const struct memory *all[] = { &anon, &memfd, &hugetlb };

	signal(SIGPIPE, SIG_IGN);
	deadline = time(NULL) + CASE_SECONDS;
	printf("TAP version 13\n1..9\n");
	for (int i = 0; i < 3; i++)
		report("postcopy", all[i], postcopy(all[i], false));
	for (int i = 0; i < 3; i++)
		report("postcopy-preempt", all[i], preempt(all[i]));
	for (int i = 0; i < 3; i++)
		report("background-snapshot", all[i], snapshot(all[i]));
	return nr_failed > 0;
}
