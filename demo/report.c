// SPDX-License-Identifier: GPL-2.0
/* Numbers, JSON and SVG. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "demo.h"

#define MS(ns)	((double)(ns) / 1e6)

static int cmp_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static FILE *out_open(const struct config *cfg, const char *ext)
{
	char path[512];
	FILE *f;

	mkdir(cfg->out, 0777);
	snprintf(path, sizeof(path), "%s/%s-%s%s%s", cfg->out, mem_names[cfg->mem],
		 mode_names[cfg->mode], cfg->bound ? "-bound" : "", ext);
	f = fopen(path, "w");
	if (!f)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return f;
}

static void json(const struct config *cfg, const struct result *r)
{
	FILE *f = out_open(cfg, ".json");

	if (!f)
		return;
#define NUM(name, val)	fprintf(f, "  \"" name "\": %llu,\n", (unsigned long long)(val))
#define MSEC(name, val)	fprintf(f, "  \"" name "\": %.3f,\n", MS(val))
	fprintf(f, "{\n  \"memory\": \"%s\",\n  \"mode\": \"%s\",\n  \"bound\": %s,\n",
		mem_names[r->mem], mode_names[r->mode], cfg->bound ? "true" : "false");
	NUM("size_bytes", cfg->size);
	NUM("page_bytes", r->unit);
	NUM("pages", r->units);
	NUM("vcpus", cfg->vcpus);
	NUM("stream_bytes_per_s", cfg->rate);
	MSEC("downtime_ms", r->downtime);
	MSEC("vcpus_restored_ms", r->resume);
	MSEC("total_ms", r->total);
	MSEC("guest_finished_ms", r->guest_end);
	NUM("pages_by_fault", r->by_fault);
	NUM("pages_by_stream", r->by_push);
	NUM("pages_faulted_on", r->faults);
	NUM("events_missing", r->ev_missing);
	NUM("events_minor", r->ev_minor);
	NUM("events_late", r->ev_late);
	NUM("ioctls_eexist", r->eexist);
	NUM("ioctls_eagain", r->again);
	MSEC("fault_latency_p50_ms", r->p50);
	MSEC("fault_latency_p90_ms", r->p90);
	MSEC("fault_latency_p99_ms", r->p99);
	MSEC("fault_latency_max_ms", r->max);
	NUM("guest_verified_pages", r->verified);
	fprintf(f, "  \"ok\": %s\n}\n", r->status ? "false" : "true");
	fclose(f);
}

/* A round number at or above v / 6, for axis ticks. */
static double tick(double v)
{
	double t = 1e-3;

	for (;;) {
		if (t * 6 >= v)
			return t;
		if (t * 12 >= v)
			return t * 2;
		if (t * 30 >= v)
			return t * 5;
		t *= 10;
	}
}

#define W	860
#define H	520
#define X0	76
#define X1	(W - 76)
#define Y0	(H - 92)
#define Y1	84

static void svg(const struct config *cfg, const struct result *r,
		const struct sample *s, const u64 *done, u64 t_stop)
{
	double span = MS(r->total > r->guest_end ? r->total : r->guest_end) * 1.02;
	u64 i, n = r->units, step = n / 1500 + 1, dots = 0, every;
	FILE *f = out_open(cfg, ".svg");
	double v;

	if (!f)
		return;
#define X(ms)	(X0 + (ms) / span * (X1 - X0))
#define Y(pg)	(Y0 - (double)(pg) / n * (Y0 - Y1))
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", W, H, W, H);
	fprintf(f, "<text x=\"%d\" y=\"28\" font-size=\"17\">Post-copy migration of a KVM guest to %s%s, %s mode</text>\n",
		X0, mem_names[r->mem], cfg->bound ? " (bound)" : "", mode_names[r->mode]);
	fprintf(f, "<text x=\"%d\" y=\"48\" fill=\"#555\">%llu MiB in %llu pages of %llu KiB, %u vCPU%s; downtime %.1f ms; fault latency p50 %.2f ms, p99 %.2f ms</text>\n",
		X0, (unsigned long long)cfg->size >> 20, (unsigned long long)n,
		(unsigned long long)r->unit >> 10, cfg->vcpus,
		cfg->vcpus > 1 ? "s" : "", MS(r->downtime), MS(r->p50), MS(r->p99));

	/* Grid and axes; both vertical scales run from 0 to the number of pages. */
	for (v = 0; v <= n; v += tick(n))
		fprintf(f, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text><text x=\"%d\" y=\"%.1f\">%.0f</text>\n",
			X0, Y(v), X1, X0 - 6, Y(v) + 4, v, X1 + 6, Y(v) + 4, v);
	for (v = 0; v <= span; v += tick(span))
		fprintf(f, "<path d=\"M%.1f %dV%d\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
			X(v), Y0, Y1, X(v), Y0 + 17, v / 1000);
	fprintf(f, "<path d=\"M%d %dV%dH%dV%d\" fill=\"none\" stroke=\"#333\"/>\n",
		X0, Y1, Y0, X1, Y1);
	fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">seconds since the source stopped the guest</text>\n",
		(X0 + X1) / 2, Y0 + 36);
	fprintf(f, "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">pages in place</text>\n",
		(Y0 + Y1) / 2);
	fprintf(f, "<text transform=\"translate(%d %d) rotate(90)\" text-anchor=\"middle\">number of the page faulted on</text>\n",
		W - 16, (Y0 + Y1) / 2);

	/* One dot for each page the guest waited for. */
	every = r->faults / 3000 + 1;
	fprintf(f, "<g fill=\"#d9480f\" fill-opacity=\"0.6\">\n");
	for (i = 0; i < n; i++)
		if (s[i].t_event && !(dots++ % every))
			fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>\n",
				X(MS(s[i].t_event - t_stop)), Y(i + 0.5),
				n > 500 ? "1.6" : "3.5");
	fprintf(f, "</g>\n");

	/* Steps, as pages come one by one. */
	fprintf(f, "<path fill=\"none\" stroke=\"#1864ab\" stroke-width=\"2\" d=\"M%d %d", X0, Y0);
	for (i = 0; i < n; i += step)
		fprintf(f, "H%.1fV%.1f", X(MS(done[i] - t_stop)), Y(i + 1));
	fprintf(f, "H%.1fV%.1fH%.1f\"/>\n", X(MS(r->total)), Y(n), X(span));

	fprintf(f, "<path d=\"M%.1f %dV%d\" stroke=\"#2b8a3e\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\"/>\n"
		"<path d=\"M%.1f %dV%d\" stroke=\"#862e9c\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\"/>\n",
		X(MS(r->downtime)), Y0, Y1, X(MS(r->guest_end)), Y0, Y1);

	fprintf(f, "<path d=\"M%d 68h26\" stroke=\"#1864ab\" stroke-width=\"2\"/><text x=\"%d\" y=\"72\">pages in place</text>\n",
		X0, X0 + 32);
	fprintf(f, "<circle cx=\"%d\" cy=\"68\" r=\"3.5\" fill=\"#d9480f\"/><text x=\"%d\" y=\"72\">guest fault", X0 + 140, X0 + 150);
	if (every > 1)
		fprintf(f, " (1 of %llu shown)", (unsigned long long)every);
	fprintf(f, "</text>\n<path d=\"M%d 68h26\" stroke=\"#2b8a3e\" stroke-width=\"1.5\" stroke-dasharray=\"5 4\"/><text x=\"%d\" y=\"72\">first guest instruction</text>\n",
		X0 + 330, X0 + 362);
	fprintf(f, "<path d=\"M%d 68h26\" stroke=\"#862e9c\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\"/><text x=\"%d\" y=\"72\">guest finished</text>\n",
		X0 + 520, X0 + 552);
	fprintf(f, "<text x=\"%d\" y=\"%d\" fill=\"#555\">%llu pages by fault, %llu by stream; guest verified %llu pages of 4 KiB, %s</text>\n</svg>\n",
		X0, H - 18, (unsigned long long)r->by_fault,
		(unsigned long long)r->by_push, (unsigned long long)r->verified,
		r->status ? "the comparison with the source failed" : "all equal to the source's");
	fclose(f);
}

static u64 percentile(const u64 *v, u64 n, unsigned int p)
{
	return n ? v[(n * p + 99) / 100 - 1] : 0;
}

void report(const struct config *cfg, struct result *r, const struct sample *s,
	    u64 t_stop)
{
	u64 *lat = calloc(r->units, sizeof(u64)), *done = calloc(r->units, sizeof(u64));
	u64 i;

	for (i = 0; i < r->units; i++) {
		done[i] = s[i].t_done;
		if (s[i].t_event)
			lat[r->faults++] = s[i].t_done - s[i].t_event;
	}
	qsort(done, r->units, sizeof(u64), cmp_u64);
	qsort(lat, r->faults, sizeof(u64), cmp_u64);
	r->total = done[r->units - 1] - t_stop;
	r->p50 = percentile(lat, r->faults, 50);
	r->p90 = percentile(lat, r->faults, 90);
	r->p99 = percentile(lat, r->faults, 99);
	r->max = percentile(lat, r->faults, 100);

	printf("%s, %s mode%s: %llu MiB, %u vCPU%s, %llu pages of %llu KiB\n",
	       mem_names[r->mem], mode_names[r->mode], cfg->bound ? ", bound" : "",
	       (unsigned long long)cfg->size >> 20, cfg->vcpus,
	       cfg->vcpus > 1 ? "s" : "", (unsigned long long)r->units,
	       (unsigned long long)r->unit >> 10);
	printf("  downtime          %9.1f ms  guest stopped to first instruction done (vCPUs restored at %.1f ms)\n",
	       MS(r->downtime), MS(r->resume));
	printf("  total             %9.1f ms  guest stopped to last page in place; guest finished at %.1f ms\n",
	       MS(r->total), MS(r->guest_end));
	printf("  pages             %9llu by fault, %llu by stream\n",
	       (unsigned long long)r->by_fault, (unsigned long long)r->by_push);
	printf("  events            %9llu missing, %llu minor, %llu late; ioctls: %llu EEXIST, %llu EAGAIN\n",
	       (unsigned long long)r->ev_missing, (unsigned long long)r->ev_minor,
	       (unsigned long long)r->ev_late, (unsigned long long)r->eexist,
	       (unsigned long long)r->again);
	printf("  fault latency ms  p50 %.2f  p90 %.2f  p99 %.2f  max %.2f  (event read to ioctl done, %llu pages)\n",
	       MS(r->p50), MS(r->p90), MS(r->p99), MS(r->max),
	       (unsigned long long)r->faults);
	printf("  guest verified %llu pages; %s\n", (unsigned long long)r->verified,
	       r->status ? "FAILED" :
	       "memory and checksum equal the source's reference run");
	if (cfg->out) {
		json(cfg, r);
		svg(cfg, r, s, done, t_stop);
	}
	fflush(stdout);
	free(lat);
	free(done);
}

void report_table(const struct result *r, int nr)
{
	int i;

	printf("\n%-12s %-8s %9s %9s %8s %9s %8s %8s %8s %8s  %s\n", "memory", "mode",
	       "downtime", "total", "by fault", "by stream", "p50", "p90", "p99", "max",
	       "guest verified");
	for (i = 0; i < nr; i++, r++) {
		printf("%-12s %-8s ", mem_names[r->mem], mode_names[r->mode]);
		if (!r->units) {
			printf("%s: %s\n", r->status == EX_CANT ? "cannot run here" :
			       "FAILED", r->note);
			continue;
		}
		printf("%6.1f ms %6.0f ms %8llu %9llu %5.2f ms %5.2f ms %5.2f ms %5.2f ms  %llu pages%s\n",
		       MS(r->downtime), MS(r->total), (unsigned long long)r->by_fault,
		       (unsigned long long)r->by_push, MS(r->p50), MS(r->p90),
		       MS(r->p99), MS(r->max), (unsigned long long)r->verified,
		       r->status ? ", FAILED" : "");
	}
	printf("latency: from reading the fault event to the end of the ioctl that resolves it\n");
	fflush(stdout);
}
