/* The smallest payload: what is measured is the way there and back, not a dynamic linker. */
int main(void) { return 0; }
