# make run       runs the destination here, with an embedded AWS         make run ARGS="--port 8081"
# make test      runs the fast test suite                                make test ARGS="-k canonicalise"
# make test-all  runs the fast suite, and all slower tests
# make e2e-page  runs one of the slower tests: tests/e2e/test_page.py    make e2e-page ARGS="-k keys"
# make check     checks format, lint, types, imports and wording         make format  corrects format and lint
# make nightly   runs the checks that take too long for each change: all examples, all faults, all permissions
# make bench     measures the cost of the function, compared with others make bench ARGS="--quick"
# make sabotage  builds faults into a copy, which the product's own tools must notice
# make mutants   shows small faults in the code that no test notices     make mutants ARGS="--sample 40"
# make plan      shows what make deploy would change, and the price      make plan STAGE=prod RATE=100
# make deploy    deploys the stack of a stage, with your AWS credentials make deploy STAGE=prod
# make undeploy  deletes the stack of a stage; tables and queues stay    make undeploy STAGE=dev
# make privileges   removes each permission of each role in turn, which a test must notice
# make screenshots  takes the pictures of the page in docs/
# make docs      builds the documentation site and serves it on this machine
# make lock      pins the dependencies (needs uv)

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
SAM_VENV := .venv-sam
# pip with the user's package index, proxy and certificates, and without other settings such as `user` or `target`.
PIP := -I .ci/run_pip.py
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
NPM_LOCK := npm install --silent --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
# The lock file has hashes, and no address of a registry.

.PHONY: run test check format lock clean
run: $(INSTALLED)
	@$(VENV)/bin/destination serve $(ARGS)

test: $(INSTALLED)
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist worksteal -m "not processes" --durations=10 --cov --cov-report=term-missing:skip-covered $(ARGS)

check: $(INSTALLED)
	$(VENV)/bin/ruff format --check --diff
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(VENV)/bin/python .ci/language.py

format: $(INSTALLED)
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

# Let Python keep compiled modules, even if the environment forbids it, as in many container images. Without them pytest
# rewrites the assertions of all tests in each process (5 s), and each server compiles its modules when it starts.
unexport PYTHONDONTWRITEBYTECODE

# The slower steps. Each module of tests/e2e/ is a target, and so is each other step of .ci/run. The longest come first, so
# that no long step runs alone at the end.
E2E := $(patsubst tests/e2e/test_%.py,e2e-%,$(wildcard tests/e2e/test_*.py))
LONGEST := e2e-faults e2e-container e2e-deploy e2e-certify e2e-page e2e-simulate
SLOWER := $(LONGEST) $(filter-out $(LONGEST) e2e-privileges,$(E2E)) processes template dynalite docs-site audit
PYTEST := $(VENV)/bin/pytest -q -p no:cacheprovider
export SAM_CLI_TELEMETRY := 0

.PHONY: ci prepare test-all nightly $(SLOWER) $(E2E) build chromium docker
ci: test check $(SLOWER)
test-all: test $(SLOWER) searches

# Checks that take too long for each change: all permissions, examples and faults. .ci/run tries a part of them.
nightly: searches sabotage privileges
	TEST_SEARCHES=thorough $(MAKE) --no-print-directory e2e-openapi

$(E2E): e2e-%: $(INSTALLED)
	PATH="$(CURDIR)/$(SAM_VENV)/bin:$$PATH" $(PYTEST) tests/e2e/test_$*.py $(ARGS)
e2e-page: $(VENV)/.browser
e2e-libraries: .libraries/.installed

# Installs and builds what the steps need. .ci/run does it first and sets PREPARED: make starts a step that has to wait for
# another target only after all others, so that the longest steps would come last.
prepare: build docker $(VENV)/.browser .libraries/.installed .venv-template/.installed .venv-audit/.installed \
	.venv-docs/.installed build/mermaid/.installed
ifndef PREPARED
e2e-page: | chromium
e2e-container: docker
e2e-artifact e2e-container e2e-deploy e2e-privileges e2e-tutorials: build
endif

# The tests with very many examples: all examples. `make test` tries a tenth of them.
.PHONY: searches
searches: $(INSTALLED)
	TEST_SEARCHES=thorough $(PYTEST) -m "hypothesis or many_examples" $(ARGS)

# Small faults in the code that no test notices. This is not a part of .ci/run, because all faults take hours.
.PHONY: mutants
mutants: $(INSTALLED)
	$(VENV)/bin/python -m tests.mutants $(ARGS)

# The tests outside tests/e2e/ that start a server or processes.
processes: $(INSTALLED)
	$(PYTEST) -m processes $(ARGS)

# Faults in a copy of the product, which its own tools must notice; e2e-sabotage tries some of these faults.
.PHONY: sabotage
sabotage: $(INSTALLED)
	SABOTAGE=all $(PYTEST) tests/e2e/test_sabotage.py $(ARGS)

# All permissions; `make e2e-privileges` tries one of each statement. Not a part of .ci/run, because each takes seconds.
.PHONY: privileges
privileges: build
	PATH="$(CURDIR)/$(SAM_VENV)/bin:$$PATH" TEST_PRIVILEGES=all $(PYTEST) tests/e2e/test_privileges.py $(ARGS)

dynalite: $(INSTALLED)
	.ci/dynalite/run tests/test_contact_table.py tests/test_erase.py tests/test_erased.py tests/test_keys.py \
		tests/test_library_routes.py tests/test_reject.py tests/test_write.py

# Check the template with SAM, and with linters for AWS's practices.
template: $(SAM_VENV)/.installed .venv-template/.installed
	$(SAM_VENV)/bin/sam validate --lint --region us-east-1
	.venv-template/bin/cfn-lint --config-file .cfn-lint.yaml
	.venv-template/bin/checkov --quiet --compact --config-file .checkov.yaml

audit: .venv-audit/.installed
	.ci/audit

build: $(SAM_VENV)/.installed $(INSTALLED)
	$(SAM_VENV)/bin/sam build

chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "There is no Chromium on this machine and none can be installed: the page is not tested"

# After `chromium`, because both may call apt-get.
docker: | chromium
	@if [ -x ../shared/tools/docker-up ]; then ../shared/tools/docker-up; fi

lock:
	$(LOCK) --output-file requirements.txt pyproject.toml
	$(LOCK) --output-file requirements-dev.txt --constraints requirements.txt --group dev pyproject.toml
	$(LOCK) --output-file requirements-browser.txt --constraints requirements-dev.txt --group browser
	$(LOCK) --output-file requirements-sam.txt --group sam
	$(LOCK) --output-file requirements-audit.txt --group audit
	$(LOCK) --output-file requirements-template.txt --group template
	$(LOCK) --output-file requirements-docs.txt --group docs
	for library in $(LIBRARIES); do echo $$library | $(LOCK) --output-file tests/e2e/libraries/$$(echo $$library | sed s/==/-/).txt -; done
	for folder in .ci/dynalite docs/site $(NODE_LIBRARY); do \
		rm -f $$folder/package-lock.json && (cd $$folder && $(NPM_LOCK)) || exit 1; \
	done

# A stage is a part of samconfig.toml, where `dev` is the default.
STAGE ?= dev
TAGS = "service=direct-destination stage=$(STAGE)"
# The commit is an output and not a tag, because a changed tag updates every resource of the stack.
COMMIT = $(or $(shell git describe --always --dirty 2>/dev/null),not-entered)
CONFIG = $(if $(filter dev,$(STAGE)),default,$(STAGE))
# Messages per second, for the price.
RATE ?= 10
.PHONY: deploy plan undeploy stage
deploy: stage build
	sed -i.original 's|not-entered|$(COMMIT)|' .aws-sam/build/template.yaml
	$(SAM_VENV)/bin/sam deploy --config-env $(CONFIG) --tags $(TAGS) $(ARGS)

# Show a change set without executing it.
plan: stage build
	sed -i.original 's|not-entered|$(COMMIT)|' .aws-sam/build/template.yaml
	$(SAM_VENV)/bin/sam deploy --config-env $(CONFIG) --tags $(TAGS) --no-execute-changeset $(ARGS)
	@$(VENV)/bin/python -m bench month --rate $(RATE)
	@echo
	@echo "Nothing of the stage was changed. This stays: the change set; the artifact in the bucket aws-sam-cli-managed-default-…,"
	@echo "which SAM creates once; and for a new stage an empty stack in the state REVIEW_IN_PROGRESS. make deploy STAGE=$(STAGE)"
	@echo "uses them, and make undeploy STAGE=$(STAGE) deletes an empty stack and the artifact."

undeploy: stage $(SAM_VENV)/.installed
	$(SAM_VENV)/bin/sam delete --config-env $(CONFIG) $(ARGS)
	@echo "Tables and queues stay, with what is in them: docs/how-to/deploy.md, Delete"

stage:
	@grep -q '^\[$(CONFIG)\.deploy' samconfig.toml || \
		{ echo "samconfig.toml has no stage $(STAGE): write make $(MAKECMDGOALS) STAGE=dev, STAGE=staging, STAGE=prod or one of your own"; exit 2; }

.PHONY: bench
bench: $(INSTALLED)
	@$(VENV)/bin/python -m bench all $(ARGS)

$(SAM_VENV)/.installed: requirements-sam.txt
	@echo "Installing the SAM CLI into $(SAM_VENV) (once, about a minute) …"
	@$(PYTHON) -I -m venv --clear $(SAM_VENV)
	@$(SAM_VENV)/bin/python $(PIP) install --quiet --no-deps --require-hashes -r requirements-sam.txt
	@cp requirements-sam.txt $@

# Don't compile: only some modules are loaded, and Python compiles a module when it loads it first.
.venv-template/.installed: requirements-template.txt
	@echo "Installing cfn-lint and checkov into .venv-template (once, about a minute) …"
	@$(PYTHON) -I -m venv --clear .venv-template
	@.venv-template/bin/python $(PIP) install --quiet --no-compile --no-deps --require-hashes -r requirements-template.txt
	@cp requirements-template.txt $@

.venv-audit/.installed: requirements-audit.txt
	@$(PYTHON) -I -m venv --clear .venv-audit
	@.venv-audit/bin/python $(PIP) install --quiet --no-compile --no-deps --require-hashes -r requirements-audit.txt
	@cp requirements-audit.txt $@

# The browser tests of the page: playwright, with a Chromium that is already installed (apt-get install chromium).
$(VENV)/.browser: requirements-browser.txt | $(INSTALLED)
	@$(VENV)/bin/python $(PIP) install --quiet --no-deps --require-hashes -r requirements-browser.txt
	@cp requirements-browser.txt $@

.PHONY: screenshots
screenshots: $(VENV)/.browser
	@$(VENV)/bin/python docs/pictures/take.py

# The documentation site in build/site. It fails on a broken link.
docs-site: $(INSTALLED) .venv-docs/.installed build/mermaid/.installed
	@if [ -e build/mermaid/node_modules ]; then $(VENV)/bin/python docs/site/build.py; \
	else echo "not built: there is no npm on this machine, which brings the diagrams"; fi

.PHONY: docs
docs: docs-site
	@echo "The documentation is at http://127.0.0.1:8000/ (Control-C ends it)"
	@$(PYTHON) -m http.server --directory build/site --bind 127.0.0.1 8000 2>/dev/null

.venv-docs/.installed: requirements-docs.txt | $(INSTALLED)
	@$(PYTHON) -I -m venv --clear .venv-docs
	@.venv-docs/bin/python $(PIP) install --quiet --no-deps --require-hashes -r requirements-docs.txt
	@cp requirements-docs.txt $@

build/mermaid/.installed: docs/site/package.json docs/site/package-lock.json
	@mkdir -p build/mermaid && cp $^ build/mermaid/
	@if command -v npm >/dev/null; then npm ci --silent --ignore-scripts --prefix build/mermaid; fi
	@touch $@

# The libraries that the destination is tested with (docs/reference/libraries.md), each in a separate environment.
LIBRARIES := segment-analytics-python==2.3.3 segment-analytics-python==2.4.0 rudder-sdk-python==2.1.9
NODE_LIBRARY := tests/e2e/libraries/node
LOCKED := $(wildcard tests/e2e/libraries/*.txt) $(NODE_LIBRARY)/package-lock.json

.libraries/.installed: $(LOCKED) | $(INSTALLED)
	@rm -rf .libraries
	@for file in $(filter %.txt,$(LOCKED)); do \
		folder=.libraries/$$(basename $$file .txt); \
		$(PYTHON) -I -m venv --without-pip $$folder && \
		$(VENV)/bin/python $(PIP) --python $$folder/bin/python install --quiet \
			--no-deps --require-hashes -r $$file || exit 1; \
	done
	@if command -v npm >/dev/null; then \
		mkdir -p .libraries/node && cp $(NODE_LIBRARY)/package.json $(NODE_LIBRARY)/package-lock.json .libraries/node/ && \
		npm ci --silent --ignore-scripts --prefix .libraries/node; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) .libraries .venv-audit .venv-docs .venv-sam .venv-template .aws-sam .dynalite .coverage* .hypothesis .local .mypy_cache .pytest_cache .ruff_cache build *.egg-info

$(INSTALLED): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " \
		+ sys.version.split()[0] + ": name one with  make PYTHON=python3.13 …")'
	@echo "Installing what is needed into $(VENV) (once, about a minute) …"
	@$(PYTHON) -I -m venv --clear $(VENV)
	@$(VENV)/bin/python $(PIP) install --quiet --no-deps --require-hashes -r requirements-dev.txt
	@$(VENV)/bin/python $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# `sam build` calls the target of each function. It builds the function in $(ARTIFACTS_DIR) for Lambda's Python and Linux,
# whatever this machine is. Compiled packages are included for both processors, so an artifact runs on either.
# All functions are equal, so only the first one is built, and the others are copies. `sam build` first empties the folder
# of all functions. The file .whole there names a function that the same run has built.
LAMBDA_PYTHON := 3.13
LAMBDA_PIP = $(VENV)/bin/python $(PIP) install --quiet \
	--no-deps --require-hashes --only-binary=:all: --implementation cp --python-version $(LAMBDA_PYTHON) --no-compile
FUNCTIONS := build-DestinationFunction build-EraserFunction build-StreamConsumerFunction build-QueueConsumerFunction
WHOLE = $(ARTIFACTS_DIR)/../.whole

.PHONY: $(FUNCTIONS) function
$(FUNCTIONS): $(INSTALLED)
	@if [ -e "$(WHOLE)" ]; then cp -R "$$(cat "$(WHOLE)")/." "$(ARTIFACTS_DIR)"; \
	else $(MAKE) --no-print-directory function && echo "$(ARTIFACTS_DIR)" > "$(WHOLE)"; fi

function:
	$(LAMBDA_PIP) --platform manylinux2014_x86_64 --target "$(ARTIFACTS_DIR)" -r requirements.txt
	$(LAMBDA_PIP) --platform manylinux2014_aarch64 --target "$(ARTIFACTS_DIR)/.aarch64" -r requirements.txt
	cp -Rn "$(ARTIFACTS_DIR)/.aarch64/." "$(ARTIFACTS_DIR)/"
	rm -rf "$(ARTIFACTS_DIR)/.aarch64"
	$(VENV)/bin/python -m destination.artifact "$(ARTIFACTS_DIR)"
