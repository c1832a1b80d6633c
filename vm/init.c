// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the test VM: set the machine up, run the jobs of /run.list one by
 * one, watch the kernel log, report on /dev/ttyS1, end the VM.
 *
 * /run.list holds NAME<TAB>TIMEOUT_SECONDS<TAB>COMMAND lines. The verdict port
 * carries, one per line:
 *
 *	BOOT seconds-since-kernel-start
 *	START name timeout
 *	| one line of output of the running job
 *	DIRTY name kernel-log-line
 *	JOB name pass|fail|skip|timeout seconds exit-status
 *	DONE number-of-jobs
 *
 * Kernel command line: uffd.hugepages=N (64), uffd.kmemleak=0, uffd.shell.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SWAP_BYTES	(256UL << 20)
#define HUGEPAGES	"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define MAX_PATTERNS	128
#define MAX_DIRTY	40	/* reported lines per job; all are in the console log */

static int port = -1;		/* verdicts */
static int kmsg = -1;
static char cmdline[4096];

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void put(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		buf += n;
		len -= n;
	}
}

/* One line, to the verdict port and for the reader to the console. */
__attribute__((format(printf, 1, 2)))
static void verdict(const char *fmt, ...)
{
	char line[4200];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	put(STDOUT_FILENO, line, len);
	if (port >= 0)
		put(port, line, len);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	return !close(fd) && ok;
}

static size_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	while (fd >= 0 && len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	if (fd >= 0)
		close(fd);
	buf[len] = 0;
	return len;
}

/* Value of a command line word KEY=VALUE; "" for the bare word, NULL if absent. */
static const char *option(const char *key)
{
	static char value[64];
	size_t len = strlen(key);
	const char *p = cmdline;

	while ((p = strstr(p, key))) {
		bool start = p == cmdline || p[-1] == ' ';

		p += len;
		if (!start || !strchr("= \n", *p))
			continue;
		p += *p == '=';
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(p, " \n"), p);
		return value;
	}
	return NULL;
}

/* --- the kernel log --- */

struct patterns {
	regex_t re[MAX_PATTERNS];
	int nr;
};
static struct patterns deny, allow;

static void load_patterns(const char *path, struct patterns *pat)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;

	if (!f)
		return verdict("DIRTY init no %s", path);
	while (getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (!*line || *line == '#')
			continue;
		if (pat->nr == MAX_PATTERNS ||
		    regcomp(&pat->re[pat->nr], line, REG_EXTENDED | REG_NOSUB))
			verdict("DIRTY init bad pattern in %s: %s", path, line);
		else
			pat->nr++;
	}
	free(line);
	fclose(f);
}

static bool matches(struct patterns *pat, const char *text)
{
	for (int i = 0; i < pat->nr; i++)
		if (!regexec(&pat->re[i], text, 0, NULL, 0))
			return true;
	return false;
}

/* Attribute what the kernel logged since the last call to this job. */
static int check_log(const char *job, int reported)
{
	char rec[8192], *text;
	ssize_t n;

	for (;;) {
		n = read(kmsg, rec, sizeof(rec) - 1);
		if (n < 0 && errno == EPIPE) {
			verdict("DIRTY %s the kernel log overran, lines are lost", job);
			reported++;
			continue;
		}
		if (n <= 0)
			return reported;
		rec[n] = 0;
		text = strchr(rec, ';');	/* prio,seq,time,flags;text\n KEY=value... */
		if (!text)
			continue;
		text++;
		text[strcspn(text, "\n")] = 0;
		if (matches(&deny, text) && !matches(&allow, text) && reported++ < MAX_DIRTY)
			verdict("DIRTY %s %s", job, text);
	}
}

/* --- the jobs --- */

static char out_line[4096];
static size_t out_len;

static void flush_line(void)
{
	if (out_len)
		verdict("| %.*s", (int)out_len, out_line);
	out_len = 0;
}

static bool pump_output(int fd)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n') {
			if (out_len)
				flush_line();
			else
				verdict("|");
			continue;
		}
		if (buf[i] && buf[i] != '\r')
			out_line[out_len++] = buf[i];
		if (out_len == sizeof(out_line))
			flush_line();
	}
	return true;
}

/* Say where every thread of every user process is before they are killed. */
static void dump_tasks(void)
{
	char path[600], state[256], stack[4096];
	struct dirent *p, *t;
	DIR *proc = opendir("/proc"), *tasks;

	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "t");
	while (proc && (p = readdir(proc))) {
		if (atoi(p->d_name) <= 1)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", p->d_name);
		if (!read_file(path, state, sizeof(state)))
			continue;	/* a kernel thread */
		snprintf(path, sizeof(path), "/proc/%s/task", p->d_name);
		tasks = opendir(path);
		while (tasks && (t = readdir(tasks))) {
			if (!atoi(t->d_name))
				continue;
			snprintf(path, sizeof(path), "/proc/%s/task/%s/stat", p->d_name, t->d_name);
			read_file(path, state, 40);
			snprintf(path, sizeof(path), "/proc/%s/task/%s/stack", p->d_name, t->d_name);
			read_file(path, stack, sizeof(stack));
			verdict("| at the time-out: %s", state);
			for (char *s = strtok(stack, "\n"); s; s = strtok(NULL, "\n"))
				verdict("|     %s", s);
		}
		if (tasks)
			closedir(tasks);
	}
	if (proc)
		closedir(proc);
}

/* Kill everything but us and reap it; false if something does not die. */
static bool kill_rest(void)
{
	double until = now() + 10;

	kill(-1, SIGKILL);
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0 && errno == ECHILD)
			return true;
		if (pid == 0) {
			if (now() > until)
				return false;
			usleep(10000);
		}
	}
}

static pid_t spawn_job(const char *command, int fds[2])
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
	dup2(fds[1], STDOUT_FILENO);
	dup2(fds[1], STDERR_FILENO);
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

static void run_job(const char *name, int timeout, const char *command)
{
	double start = now(), deadline = start + timeout;
	int fds[2], status = -1, dirty = 0, code;
	bool timed_out = false;
	const char *word;
	pid_t pid;

	verdict("START %s %d", name, timeout);
	if (pipe2(fds, O_CLOEXEC) || (pid = spawn_job(command, fds)) < 0)
		return verdict("JOB %s fail 0 %d", name, errno);
	close(fds[1]);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	for (;;) {
		struct pollfd pfd = { .fd = fds[0], .events = POLLIN };
		int child = -1;
		pid_t got;

		if (poll(&pfd, 1, 100) > 0 && !(pfd.revents & POLLIN))
			usleep(10000);	/* only POLLHUP is left */
		else if (pfd.revents & POLLIN)
			pump_output(fds[0]);
		dirty = check_log(name, dirty);
		while ((got = waitpid(-1, &child, WNOHANG)) > 0)
			if (got == pid)
				break;
		if (got == pid) {
			status = child;
			break;
		}
		if (now() > deadline) {
			timed_out = true;
			flush_line();
			dump_tasks();
			break;
		}
	}
	if (!kill_rest())
		verdict("DIRTY %s a process of the job survives SIGKILL", name);
	for (struct pollfd pfd = { .fd = fds[0], .events = POLLIN };
	     poll(&pfd, 1, 0) > 0 && pump_output(fds[0]); )
		;
	flush_line();
	close(fds[0]);
	usleep(50000);	/* what the exit makes the kernel say */
	check_log(name, dirty);

	code = timed_out ? 124 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	word = timed_out ? "timeout" : code == 0 ? "pass" : code == 4 ? "skip" : "fail";
	verdict("JOB %s %s %.1f %d", name, word, now() - start, code);
}

static int run_jobs(void)
{
	FILE *f = fopen("/run.list", "re");
	char *line = NULL;
	size_t cap = 0;
	int nr = 0;

	while (f && getline(&line, &cap, f) > 0) {
		char *name, *timeout, *command, *p = line;

		line[strcspn(line, "\n")] = 0;
		if (!*line || *line == '#')
			continue;
		name = strsep(&p, "\t");
		timeout = strsep(&p, "\t");
		command = p;
		if (!command || atoi(timeout) <= 0) {
			verdict("DIRTY init bad line in /run.list: %s", name);
			continue;
		}
		run_job(name, atoi(timeout), command);
		nr++;
	}
	free(line);
	if (f)
		fclose(f);
	return nr;
}

/* An object counts if it is still lost at the second scan, and was not young. */
static void check_kmemleak(void)
{
	const char *opt = option("uffd.kmemleak");
	char *line = NULL;
	size_t cap = 0;
	int nr = 0;
	FILE *f;

	if ((opt && !strcmp(opt, "0")) || !write_file(KMEMLEAK, "scan"))
		return;
	sleep(6);
	if (!write_file(KMEMLEAK, "scan") || !(f = fopen(KMEMLEAK, "re")))
		return verdict("DIRTY kmemleak the second scan failed");
	while (getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "unreferenced object", 19))
			verdict("| %s", line);
		else if (nr++ < MAX_DIRTY)
			verdict("DIRTY kmemleak %s", line);
	}
	verdict("| kmemleak: %d objects lost", nr);
	free(line);
	fclose(f);
}

static void send_files(void)
{
	pid_t pid = fork();

	if (!pid) {
		struct termios tio;
		int fd = open("/dev/ttyS2", O_WRONLY | O_NOCTTY);

		if (fd < 0)
			_exit(1);
		tcgetattr(fd, &tio);
		cfmakeraw(&tio);
		cfsetspeed(&tio, B115200);
		tcsetattr(fd, TCSANOW, &tio);
		dup2(fd, STDOUT_FILENO);
		execl("/bin/busybox", "tar", "cf", "-", "-C", "/out", ".", NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

/* --- the machine --- */

static void mount_at(const char *type, const char *dir, const char *data)
{
	mkdir(dir, 01777);
	if (mount(type, dir, type, 0, data) && errno != ENODEV && errno != ENOENT && errno != EBUSY)
		printf("init: mount %s: %m\n", dir);
}

static void load_modules(void)
{
	FILE *f = fopen("/modules/list", "re");
	char *line = NULL, path[256];
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0) {
		char *name = line + (*line == '?');
		int fd, ret;

		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		ret = fd < 0 ? -1 : (int)syscall(SYS_finit_module, fd, "", 0);
		if (ret && *line != '?')
			verdict("DIRTY init module %s: %m", name);
		if (fd >= 0)
			close(fd);
	}
	free(line);
	if (f)
		fclose(f);
}

static void add_swap(void)
{
	struct { uint32_t version, last_page, nr_badpages; } info = { 1, SWAP_BYTES / 4096 - 1, 0 };
	char bytes[32];
	int fd;

	snprintf(bytes, sizeof(bytes), "%lu", SWAP_BYTES);
	if (!write_file("/sys/block/zram0/disksize", bytes))
		return;
	fd = open("/dev/zram0", O_RDWR | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, &info, sizeof(info), 1024) < 0 ||
	    pwrite(fd, "SWAPSPACE2", 10, 4096 - 10) < 0 || fsync(fd) || close(fd) ||
	    swapon("/dev/zram0", 0))
		printf("init: swap: %m\n");
}

static void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &ifr);
		close(fd);
	}
}

static void open_ports(void)
{
	struct termios tio;

	port = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (port >= 0 && !tcgetattr(port, &tio)) {
		cfmakeraw(&tio);
		cfsetspeed(&tio, B115200);
		tcsetattr(port, TCSANOW, &tio);
	}
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0)
		verdict("DIRTY init /dev/kmsg: %m");
}

static void set_up(void)
{
	struct rlimit none = { 0, 0 };
	const char *pages;
	char got[32];

	mount_at("devtmpfs", "/dev", NULL);
	for (int fd = 0; fd < 3; fd++)
		dup2(open("/dev/console", O_RDWR | O_NOCTTY), fd);
	setlinebuf(stdout);
	mount_at("proc", "/proc", NULL);
	mount_at("sysfs", "/sys", NULL);
	mount_at("tmpfs", "/tmp", NULL);
	mount_at("tmpfs", "/dev/shm", NULL);
	mount_at("devpts", "/dev/pts", NULL);
	mount_at("debugfs", "/sys/kernel/debug", NULL);
	mount_at("tracefs", "/sys/kernel/tracing", NULL);
	mount_at("cgroup2", "/sys/fs/cgroup", NULL);
	mount_at("hugetlbfs", "/dev/hugepages", NULL);
	mkdir("/out", 0755);
	read_file("/proc/cmdline", cmdline, sizeof(cmdline));

	setenv("PATH", "/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("TERM", "vt100", 0);
	setrlimit(RLIMIT_CORE, &none);
	write_file("/proc/sys/kernel/core_pattern", "");
	write_file("/proc/sys/kernel/hung_task_warnings", "-1");
	write_file("/proc/sys/kernel/printk_devkmsg", "on");
	write_file("/proc/sys/vm/overcommit_memory", "1");
	open_ports();
	load_patterns("/deny", &deny);
	load_patterns("/allow", &allow);
	load_modules();
	add_swap();
	loopback_up();

	pages = option("uffd.hugepages");
	pages = pages ? pages : "64";
	write_file(HUGEPAGES, pages);
	read_file(HUGEPAGES, got, sizeof(got));
	if (atoi(got) < atoi(pages))
		verdict("DIRTY init only %d of %s huge pages", atoi(got), pages);
}

/* A reset ends the VM (qemu -no-reboot); unlike power-off it needs no ACPI. */
static void end(void)
{
	fflush(NULL);
	if (port >= 0)
		tcdrain(port);
	tcdrain(STDOUT_FILENO);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void shell(void)
{
	pid_t pid = fork(), got;

	if (!pid) {
		int tty;

		setsid();
		tty = open("/dev/ttyS0", O_RDWR);
		ioctl(tty, TIOCSCTTY, 1);
		for (int fd = 0; fd < 3; fd++)
			dup2(tty, fd);
		execl("/bin/sh", "-sh", NULL);
		_exit(127);
	}
	while ((got = wait(NULL)) != pid && (got > 0 || errno == EINTR))
		;
}

int main(void)
{
	int nr;

	set_up();
	if (option("uffd.shell")) {
		shell();
		end();
	}
	check_log("boot", 0);
	verdict("BOOT %.1f", now());
	nr = run_jobs();
	check_kmemleak();
	check_log("end", 0);
	send_files();
	verdict("DONE %d", nr);
	end();
}
