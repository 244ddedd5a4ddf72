# Runs the supervisor of a job with the Python interpreter of the node's Ray.
#
# Ray runs the entrypoint of a job in a plain shell. If Ray was started from a virtual environment
# that is not on PATH, the `python` of that shell is another interpreter or missing. The raylet,
# an ancestor of this process, has the command of its workers in its arguments.

process=$$ python=
while [ "${process:-0}" -gt 1 ] && [ -z "$python" ]; do
    python=$(tr '\0' '\n' <"/proc/$process/cmdline" | sed -n 's/^--python_worker_command=\([^ ]*\) .*/\1/p')
    process=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status")
done
[ -x "$python" ] || python=$(command -v python || command -v python3)
"${python:-python}" -c "import ray" >/dev/null 2>&1 || {
    echo "error: the interpreter '${python:-python}' of the head node cannot import Ray: start Ray in an environment whose python is the first one on PATH."
    exit 1
}
exec "$python" -m cluster.jobs.supervisor "$@"
