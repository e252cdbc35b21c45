# The classic, twelve generations deep.
bomb() {
    (($1 > 0)) || return
    bomb $(($1 - 1)) & bomb $(($1 - 1)) &
    wait
}
echo "lighting the fuse"
bomb 12
