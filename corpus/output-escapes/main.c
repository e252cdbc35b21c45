// Prints terminal escapes and HTML; it is only text.
#include <stdio.h>
int main(void) { puts("\x1b]0;title\a\x1b[2J<script>alert(1)</script>\r\b"); }
