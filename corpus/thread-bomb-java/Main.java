// Starts threads until the runtime says that it cannot.
public class Main {
    public static void main(String[] args) {
        int made = 0;
        try {
            for (; made < 3000; made++) {
                Thread t = new Thread(() -> { try { Thread.sleep(10000); } catch (InterruptedException e) { } });
                t.setDaemon(true);
                t.start();
            }
            System.out.println("no limit");
        } catch (OutOfMemoryError e) {
            System.out.println("stopped: " + e.getMessage());
        }
    }
}
