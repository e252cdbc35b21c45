read -r a b
source add.sh
