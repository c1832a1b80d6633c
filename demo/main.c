// SPDX-License-Identifier: GPL-2.0
/* Options; a source and a destination for each run; the self test. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "demo.h"

const char * const mem_names[MEM_NR] = {
	"anon", "memfd", "hugetlb", "guest_memfd",
};
const char * const mode_names[MODE_NR] = { "missing", "minor" };

/* What each kind of sabotage has to make which side say. */
static const struct {
	const char *name, *who, *says;
} sabotages[SAB_NR] = {
	[SAB_KILL_SOURCE] = { "kill-source", "destination", "source died after" },
	[SAB_CORRUPT]	= { "corrupt", "destination", "bad checksum of page" },
	[SAB_SHORT]	= { "short", "destination", "short read: page" },
	[SAB_WRONG_PAGE] = { "wrong-page", "destination", "out of range" },
	[SAB_DUP_PAGE]	= { "dup-page", "destination", "came twice with different content" },
	[SAB_BAD_MAGIC]	= { "bad-magic", "destination", "bad magic" },
	[SAB_UNASKED]	= { "unasked", "destination", "was never asked for" },
	[SAB_STALL]	= { "stall", "destination", "nothing heard for" },
	[SAB_LIE]	= { "lie", "destination", "guest found" },
	[SAB_KILL_DEST]	= { "kill-dest", "source", "destination is gone after" },
	[SAB_BAD_REQUEST] = { "bad-request", "source", "bad request: page" },
};

const char *role = "uffd-demo";
int result_fd = -1;

u64 now_ns(void)
{
	struct timespec ts;

	/* One clock for both processes: they run on one machine. */
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* Say why, in one line, and end with all threads. */
void die(int code, const char *fmt, ...)
{
	struct result r = { .status = code };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r.note, sizeof(r.note), fmt, ap);
	va_end(ap);
	fflush(stdout);
	dprintf(2, "%s: %s\n", role, r.note);
	if (result_fd >= 0 && write(result_fd, &r, sizeof(r)) < 0)
		perror("result");
	_exit(code);
}

struct child {
	const char *name;
	pid_t pid;
	int status;		/* exit code, or -1 - signal */
};

static void start(struct child *c, const char *name, const struct config *cfg,
		  int sock, int other, int res, int output,
		  void (*fn)(const struct config *, int))
{
	pid_t parent = getpid();

	fflush(stdout);
	c->name = name;
	c->pid = fork();
	if (c->pid < 0)
		die(EX_FAIL, "fork: %s", strerror(errno));
	if (c->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EX_FAIL);
	role = name;
	result_fd = res;
	if (other >= 0)
		close(other);	/* or we would never see the peer's end */
	if (output >= 0) {
		dup2(output, 1);
		dup2(output, 2);
	}
	fn(cfg, sock);
	_exit(EX_OK);
}

static bool reap(struct child *c)
{
	int st;

	if (c->pid > 0 && waitpid(c->pid, &st, WNOHANG) == c->pid) {
		c->pid = 0;
		c->status = WIFEXITED(st) ? WEXITSTATUS(st) : -1 - WTERMSIG(st);
	}
	return !c->pid;
}

static void complain(const struct child *c)
{
	if (c->status < 0)
		fprintf(stderr, "%s: ended by signal %d\n", c->name, -1 - c->status);
}

static void probe(const struct config *cfg, int sock)
{
	(void)sock;
	dest_probe(cfg);
}

/*
 * One migration.  With text, what both sides print is collected there.
 * The exit codes of both are left in *src and *dst.
 */
static void run(const struct config *cfg, struct result *r, char *text, size_t max,
		struct child *src, struct child *dst)
{
	int sock[2], res[2], out[2] = { -1, -1 };
	u64 limit = now_ns() + (cfg->timeout * 60 + 60) * 1000000000ull;
	struct result got;
	bool killed = false;
	size_t len = 0;

	memset(r, 0, sizeof(*r));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) ||
	    pipe2(res, O_CLOEXEC | O_NONBLOCK) ||
	    (text && pipe2(out, O_CLOEXEC | O_NONBLOCK)))
		die(EX_FAIL, "pipe: %s", strerror(errno));

	start(dst, "uffd-demo", cfg, -1, -1, res[1], out[1], probe);
	while (!reap(dst))
		usleep(2000);
	*src = *dst;
	if (!dst->status) {
		start(src, "source", cfg, sock[0], sock[1], -1, out[1], source_main);
		start(dst, "destination", cfg, sock[1], sock[0], res[1], out[1], dest_main);
	}
	close(sock[0]);
	close(sock[1]);
	close(res[1]);
	if (text)
		close(out[1]);

	for (;;) {
		bool s = reap(src), d = reap(dst);
		ssize_t n = text ? read(out[0], text + len, max - 1 - len) : 0;

		if (n > 0) {
			len += n;
			continue;
		}
		if (s && d)
			break;
		/* A source that hangs on purpose, or has lost its peer. */
		if (d && cfg->sabotage == SAB_STALL)
			kill(src->pid, SIGKILL);
		if (now_ns() > limit && !killed) {
			killed = true;
			fprintf(stderr, "uffd-demo: run takes too long, killed\n");
			if (!s)
				kill(src->pid, SIGKILL);
			if (!d)
				kill(dst->pid, SIGKILL);
		}
		usleep(5000);
	}
	if (text) {
		text[len] = 0;
		close(out[0]);
	} else if (!cfg->sabotage) {
		complain(src);
		complain(dst);
	}
	if (read(res[0], &got, sizeof(got)) == sizeof(got))
		*r = got;
	close(res[0]);
	r->mem = cfg->mem;
	r->mode = cfg->mode;
	if (dst->status == EX_CANT)
		r->status = EX_CANT;
	else if (killed || dst->status || src->status)
		r->status = EX_FAIL;
	if (r->status && !r->note[0])
		snprintf(r->note, sizeof(r->note), "source ended with %d, destination with %d",
			 src->status, dst->status);
}

static int worse(int a, int b)
{
	if (a == EX_FAIL || b == EX_FAIL)
		return EX_FAIL;
	return a > b ? a : b;
}

/* Once without sabotage, then each kind of it; KTAP, numbered on from *nr. */
static int selftest(struct config *cfg, int *nr)
{
	static char text[16384];
	int i, ret = EX_OK;

	for (i = SAB_NONE; i < SAB_NR; i++) {
		bool by_source = i && !strcmp(sabotages[i].who, "source"), ok;
		const char *says = i ? sabotages[i].says : "guest verified";
		struct child src, dst;
		struct result r;
		char *line, what[64];
		u64 t = now_ns();

		++*nr;
		snprintf(what, sizeof(what), "%s %s %s", mem_names[cfg->mem],
			 mode_names[cfg->mode], i ? sabotages[i].name : "no sabotage");
		if (i == SAB_UNASKED && cfg->mem == MEM_HUGETLB) {
			printf("ok %d - %s # SKIP the guest may ask for any 2 MiB page\n",
			       *nr, what);
			continue;
		}
		cfg->sabotage = i;
		run(cfg, &r, text, sizeof(text), &src, &dst);
		if (r.status == EX_CANT) {
			printf("ok %d - %s # SKIP %s\n", *nr, what, r.note);
			ret = worse(ret, EX_CANT);
			continue;
		}
		line = strstr(text, says);
		ok = line && (i ? (by_source ? src.status : dst.status) == EX_FAIL :
			      !r.status);
		printf("%sok %d - %s: ", ok ? "" : "not ", *nr, what);
		if (i)
			printf("%s exits non-zero and says so (%.1f s)\n",
			       sabotages[i].who, (now_ns() - t) / 1e9);
		else
			printf("all pages right on both sides (%.1f s)\n",
			       (now_ns() - t) / 1e9);
		if (!ok)
			printf("# source exit %d, destination exit %d, \"%s\" %s; output:\n# ",
			       src.status, dst.status, says, line ? "seen" : "not seen");
		while (line && line > text && line[-1] != '\n')
			line--;
		if (ok) {
			printf("# ");
			line[strcspn(line, "\n")] = 0;
		} else {
			line = text;
		}
		for (; *line; line++)
			printf("%c%s", *line, *line == '\n' && line[1] ? "# " : "");
		printf("\n");
		fflush(stdout);
		if (!ok)
			ret = EX_FAIL;
	}
	return ret;
}

static int lookup(const char *s, const char * const *names, int nr, const char *opt)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(s, names[i]))
			return i;
	fprintf(stderr, "uffd-demo: %s does not know %s\n", opt, s);
	exit(EX_FAIL);
}

static const char usage[] =
"uffd-demo: migrate a running KVM guest to memory that userfaultfd fills\n"
"  --mem anon|memfd|hugetlb|guest_memfd|all   memory type (guest_memfd)\n"
"  --mode missing|minor|both   how pages are put in place (both; anon: missing)\n"
"  --size MIB      guest memory (32; self test 16; --fault-only 8)\n"
"  --vcpus N       1 to 4 (1)\n"
"  --rate MIB      background stream in MiB/s, 0: as fast as it goes (8)\n"
"  --fault-only    no background stream until the guest has finished\n"
"  --unbound       memslot that only uses the mapping of its guest_memfd\n"
"  --out DIR       write DIR/MEM-MODE.svg and .json\n"
"  --timeout S     give up after S seconds of silence (10)\n"
"  --sabotage KIND break something: kill-source corrupt short wrong-page dup-page\n"
"                  bad-magic unasked stall lie kill-dest bad-request\n"
"  --selftest      check that each kind of sabotage is detected\n"
"exit: 0 all well, 1 failure, 4 cannot run here\n";

int main(int argc, char **argv)
{
	static const char * const with_all[] = { "anon", "memfd", "hugetlb", "guest_memfd", "all" };
	static const char * const with_both[] = { "missing", "minor", "both" };
	static const struct option opts[] = {
		{ "mem", 1, NULL, 'm' }, { "mode", 1, NULL, 'M' },
		{ "size", 1, NULL, 's' }, { "vcpus", 1, NULL, 'c' },
		{ "rate", 1, NULL, 'r' }, { "fault-only", 0, NULL, 'f' },
		{ "unbound", 0, NULL, 'u' }, { "out", 1, NULL, 'o' },
		{ "timeout", 1, NULL, 't' }, { "sabotage", 1, NULL, 'S' },
		{ "selftest", 0, NULL, 'T' }, { "help", 0, NULL, 'h' }, {},
	};
	struct config cfg = {
		.rate = 8 << 20, .vcpus = 1, .timeout = 10,
	};
	struct result results[MEM_NR * MODE_NR];
	struct config todo[MEM_NR * MODE_NR];
	int mem = MEM_GMEM, mode = MODE_NR, nr = 0, todos = 0, ret = EX_OK, c, i;
	bool test = false, unbound = false;

	while ((c = getopt_long(argc, argv, "h", opts, NULL)) != -1) {
		switch (c) {
		case 'm':
			mem = lookup(optarg, with_all, MEM_NR + 1, "--mem");
			break;
		case 'M':
			mode = lookup(optarg, with_both, MODE_NR + 1, "--mode");
			break;
		case 's':
			cfg.size = strtoull(optarg, NULL, 0) << 20;
			break;
		case 'c':
			cfg.vcpus = strtoul(optarg, NULL, 0);
			break;
		case 'r':
			cfg.rate = strtod(optarg, NULL) * (1 << 20);
			break;
		case 'f':
			cfg.fault_only = true;
			break;
		case 'u':
			unbound = true;
			break;
		case 'o':
			cfg.out = optarg;
			break;
		case 't':
			cfg.timeout = strtoul(optarg, NULL, 0);
			break;
		case 'S':
			for (i = 1; i < SAB_NR; i++)
				if (!strcmp(optarg, sabotages[i].name))
					cfg.sabotage = i;
			if (!cfg.sabotage)
				die(EX_FAIL, "--sabotage does not know %s", optarg);
			break;
		case 'T':
			test = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EX_OK;
		default:
			fputs(usage, stderr);
			return EX_FAIL;
		}
	}
	if (optind < argc)
		die(EX_FAIL, "what is %s? see --help", argv[optind]);
	if (!cfg.size)
		cfg.size = (cfg.fault_only ? 8 : test ? 16 : 32) << 20;
	if (cfg.size < 4 << 20 || cfg.size > 2048ull << 20 || cfg.size % (2 << 20))
		die(EX_FAIL, "--size takes an even number of MiB from 4 to 2048");
	if (!cfg.vcpus || cfg.vcpus > GUEST_MAX_CPUS)
		die(EX_FAIL, "--vcpus takes 1 to %d", GUEST_MAX_CPUS);
	if (!cfg.timeout || cfg.timeout > 3600)
		die(EX_FAIL, "--timeout takes 1 to 3600 seconds");
	if (unbound && mem != MEM_GMEM)
		die(EX_FAIL, "--unbound goes with --mem guest_memfd only");
	if (mem == MEM_ANON && mode == MODE_MINOR)
		die(EX_FAIL, "anonymous memory has no minor mode: there is no file to map again");

	for (i = 0; i < MEM_NR * MODE_NR; i++) {
		cfg.mem = i / MODE_NR;
		cfg.mode = i % MODE_NR;
		cfg.bound = cfg.mem == MEM_GMEM && !unbound;
		if ((mem == MEM_NR || mem == (int)cfg.mem) &&
		    (mode == MODE_NR || mode == (int)cfg.mode) &&
		    !(cfg.mem == MEM_ANON && cfg.mode == MODE_MINOR))
			todo[todos++] = cfg;
	}
	if (test)
		printf("KTAP version 1\n1..%d\n", todos * SAB_NR);
	for (i = 0; i < todos; i++) {
		struct child src, dst;

		if (test) {
			ret = worse(ret, selftest(&todo[i], &nr));
			continue;
		}
		run(&todo[i], &results[i], NULL, 0, &src, &dst);
		ret = worse(ret, results[i].status);
	}
	if (!test && todos > 1)
		report_table(results, todos);
	return ret;
}
