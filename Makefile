# SPDX-License-Identifier: GPL-2.0
# The front end; each target is one script.
.DEFAULT_GOAL := help
.PHONY: help run test torture mutants bench check bisect tree refresh shell clean

help:
	@echo 'make run      run the demo in a VM (ARGS="--mem all" and the like; ARGS=--compare: without'
	@echo '              the series and with it, by a clock that counts instructions)'
	@echo 'make test     run all tests in a VM (TESTS="NAME..." for some, BASE=1 for the'
	@echo '              unmodified tests on the unpatched kernel)'
	@echo 'make mutants  break the kernel in small ways and see the tests notice'
	@echo 'make torture  the tests, and 30 minutes of random fills, in kernels that hunt bugs: KASAN,'
	@echo '              KCSAN, lock debugging, PREEMPT_RT (ARGS="--kernels kasan --minutes 5")'
	@echo 'make bench    count the instructions that filling a page takes, with and without'
	@echo '              the series (ARGS="--quick", ARGS="--rows REGEX" and the like;'
	@echo '              PEER=X.Y: and with that Linux from Debian; ARGS=--contention:'
	@echo '              which locks threads wait for instead)'
	@echo 'make check    check the patches (FAST=1: without the long checks)'
	@echo 'make bisect   build, boot and test each patch by itself (ARGS="--from N --to M");'
	@echo '              goes on where it was stopped, does what changed'
	@echo 'make tree     unpack the kernel and apply the patches to out/tree'
	@echo 'make refresh  write the commits of out/tree back to patches/'
	@echo 'make shell    a prompt in the test VM'
	@echo 'make clean    remove what was built; git work trees in out/ stay'

run:
	@scripts/demo $(ARGS)

test:
	@scripts/test $(if $(BASE),--base) $(TESTS)

torture:
	@scripts/torture $(ARGS)

mutants:
	@scripts/mutants $(TESTS)

bench:
	@scripts/bench $(ARGS)

check:
	@FAST=$(FAST) scripts/check

bisect:
	@scripts/bisect $(ARGS)

tree:
	@scripts/tree

refresh:
	@scripts/refresh

shell:
	@scripts/shell

clean:
	@for d in out/*; do [ -e "$$d/.git" ] || rm -rf "$$d"; done
