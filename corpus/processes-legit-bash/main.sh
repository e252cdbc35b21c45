# Pipelines, command substitution, here documents and background jobs.
n=$(printf '%s\n' {1..100} | sort -n | tail -1)
while read -r line; do echo "$line $n"; done <<EOF
last is
EOF
sleep 0.1 &
wait
echo done
