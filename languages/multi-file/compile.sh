sed s/plus/+/ add.txt > add.sh
rm add.txt
