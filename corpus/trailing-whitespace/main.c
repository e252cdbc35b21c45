// White space at line ends and blank lines at the end do not count.
#include <stdio.h>
int main(void) { printf("7 \t \r\n\n \n"); }
