// A parallel stream.
import java.util.stream.LongStream;

public class Main {
    public static void main(String[] args) {
        System.out.println(LongStream.rangeClosed(1, 1000000).parallel().sum());
    }
}
